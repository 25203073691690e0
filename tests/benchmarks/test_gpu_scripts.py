"""The GPU benchmarks run in their small form on a CPU, and measure everything that can be measured there."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

LEFT_OUT = ("spconv cannot be used here", "not in small runs")


@pytest.fixture(autouse=True)
def _benchmarks(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def run(name: str, path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    module: ModuleType = importlib.import_module(name)
    options = ["--device", "cpu", "--small", "--turns", "1", "--json", str(path), *more]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    assert module.main() == 0
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == tf32
    content: dict[str, Any] = json.loads(path.read_text())
    assert content["finished"]
    assert content["device"]["kind"] == "cpu"
    assert all(verdict["status"] in ("not judged", "not measured") for verdict in content["verdicts"])
    unexpected = [what for what in content["left_out"] if not what.endswith(LEFT_OUT)]
    assert not unexpected
    return content


def test_pretrain_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = run("pretrain_step", tmp_path / "a.json", monkeypatch)
    rows = {row["case"]: row for row in content["rows"]}
    assert set(rows) == {"ours, bf16", "ours, float32", "upstream's, float32", "upstream's, float32, no TF32"}
    for row in rows.values():
        assert row["samples_per_second"] == pytest.approx(2e3 / row["step_ms"]["median"])
        assert set(row["phases_ms"]) == {"copy", "forward", "backward", "checks", "optimizer", "after step"}
        # The phases are a step of their own, so their sum is about a step.
        assert 0.1 < sum(row["phases_ms"].values()) / row["step_ms"]["median"] < 10
        assert row["host_reads"] == len(row["host_read_places"]) > 0
    assert 0 <= content["waiting"]["share"] <= 1
    assert {verdict["point"] for verdict in content["verdicts"]} == {3}


def test_train_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = run("train_step", tmp_path / "a.json", monkeypatch)
    cases = {(row["model"], row["case"]) for row in content["rows"]}
    assert cases == {(m, c) for m in ("SECOND", "CenterPoint") for c in ("ours, bf16", "ours, float32")}


def test_radar_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = run("radar_step", tmp_path / "a.json", monkeypatch, "--models", "ERASE-Net")
    assert [row["case"] for row in content["rows"]] == ["float32", "bf16"]


def test_sparse_conv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = run("sparse_conv", tmp_path / "a.json", monkeypatch)
    encoders = [row for row in content["rows"] if row["what"] == "encoder"]
    assert {(row["backbone"], row["precision"]) for row in encoders} == {
        (backbone, precision)
        for backbone in ("VoxelBackBone8x", "VoxelResBackBone8x")
        for precision in ("float32", "bf16", "fp16")
    }
    layers = [row for row in content["rows"] if row["what"] == "layer" and row["precision"] == "float32"]
    by_backbone = {b: [r for r in layers if r["backbone"] == b] for b in ("VoxelBackBone8x", "VoxelResBackBone8x")}
    assert sum(row["layers"] for row in by_backbone["VoxelBackBone8x"]) == 12
    # What the residual variant has and the other has not: 64 -> 128, 128 -> 128 and the output.
    assert [row["layers"] for row in by_backbone["VoxelResBackBone8x"]] == [1, 4, 1]
    for row in layers:
        channels = row["layer"].split()[-2].split("->")
        assert row["operations"] == 2 * row["pairs"] * int(channels[0]) * int(channels[1])
        assert set(row["milliseconds"]) == set(row["share_of_roofline"])
        assert None not in row["milliseconds"].values()
    exact = [row for row in content["rows"] if row["what"] == "accuracy" and row["precision"] == "float32"]
    assert len(exact) == 9 + 9  # kinds of layers
    assert all(0 < error < 1e-5 for row in exact for error in row["errors"].values())
    assert {verdict["point"] for verdict in content["verdicts"]} == {1, 2}
