from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adperception.checkpoint.save import write_tensors
from adperception.zoo import create_model, load_model_config


def test_published_sizes(tool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("flops")(["tmva_net_carrada", "mv_net_carrada", "--parts"]) == 0
    output = capsys.readouterr().out
    assert "TMVANet, 5,630,984 parameters\n  95.62 G multiply-adds" in output
    assert "MVNet, 2,375,432 parameters (1,336,712 of them learn)\n  53.28 G multiply-adds" in output
    assert "ra_encoding_branch" in output


def test_weights_and_cells(tool: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    config = load_model_config("mv_net_tiny").values["model"]
    write_tensors(path, create_model("mv_net_tiny").state_dict(), {"model_config": config})
    assert tool("flops")([str(path), "--cells", "64", "64", "16"]) == 0
    assert "  3.34 G multiply-adds" in capsys.readouterr().out


def test_sparse_parts_are_named(tool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("flops")(["second_tiny"]) == 0
    assert "not counted: weights of backbone_3d (12)" in capsys.readouterr().out


def test_errors(tool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("flops")(["tmva_net_carada"]) == 1
    assert 'Did you mean "tmva_net_carrada"' in capsys.readouterr().err
