from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adperception.checkpoint.convert_ad_l_jepa import kernel_layout, to_ad_l_jepa
from adperception.checkpoint.load import read_metadata
from adperception.zoo import create_model

MODEL = "ad_l_jepa_small"


def convert(repository: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/convert_checkpoint.py", *map(str, arguments), "--model", MODEL]
    return subprocess.run(command, capture_output=True, text=True, cwd=repository)


@pytest.mark.parametrize("layout", ["KRSC", "RSKC", "RSCK"])
def test_released_checkpoint_of_every_layout_and_back(repository: Path, tmp_path: Path, layout: str) -> None:
    """Layouts that look alike where input and output channels are equal are told apart by the last convolution."""
    inverse = {"KRSC": (0, 1, 2, 3, 4), "RSKC": (1, 2, 3, 0, 4), "RSCK": (1, 2, 3, 4, 0)}[layout]
    original = create_model(MODEL).state_dict()
    theirs = {
        k: v.permute(inverse).contiguous() if v.dim() == 5 else v for k, v in to_ad_l_jepa(original, 6960).items()
    }
    assert kernel_layout(theirs) == layout
    torch.save({"model_state": theirs, "epoch": 30, "version": "pcdet+0.5.2"}, tmp_path / "released.pth")
    ours = tmp_path / "ours.safetensors"
    done = convert(repository, tmp_path / "released.pth", ours)
    assert done.returncode == 0, done.stderr
    assert f"167 tensors, kernel layout {layout} -> KRSC, step 6960" in done.stdout
    loaded = create_model(MODEL, ours).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in original.items())
    assert read_metadata(ours)["model_config"]["type"] == "ADLJEPA"
    if layout == "KRSC":
        back = convert(repository, ours, tmp_path / "back.pth", "--to", "ad_l_jepa", "--global-step", "6960")
        assert back.returncode == 0, back.stderr
        returned = torch.load(tmp_path / "back.pth", weights_only=True)["model_state"]
        assert set(returned) == set(theirs)
        assert all(torch.equal(returned[k], v) for k, v in theirs.items())


def test_other_checkpoints_are_named(repository: Path, tmp_path: Path) -> None:
    torch.save({"model_state": {"dense_head.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    done = convert(repository, tmp_path / "detector.pth", tmp_path / "ours.safetensors")
    assert done.returncode == 1
    assert done.stderr.startswith("error: kernel_layout: encoder.conv_out.0.weight has shape None")
