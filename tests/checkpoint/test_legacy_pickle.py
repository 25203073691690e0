from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.legacy_pickle import read_pickled_checkpoint


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("zip_format", [True, False])
def test_tensors_and_numpy_numbers(tmp_path: Path, zip_format: bool) -> None:
    path = tmp_path / "checkpoint.pth"
    content = {"model_state": {"a": torch.arange(3)}, "optimizer_state": {"lr": np.float64(3e-4)}, "epoch": 30}
    torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    read = read_pickled_checkpoint(path)
    assert torch.equal(read["model_state"]["a"], torch.arange(3))
    assert read["optimizer_state"]["lr"] == 3e-4


def test_anything_else_is_refused_by_name_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state": Harmful()}, "checkpoint.pth")
    with pytest.raises(CheckpointError, match=r"system") as refusal:
        read_pickled_checkpoint("checkpoint.pth")
    assert str(refusal.value).startswith("checkpoint.pth: not read: ")
    assert "weights_only" not in str(refusal.value)  # no advice to read it unsafely
    assert not Path("executed").exists()


def test_damaged_missing_and_other_content(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    with pytest.raises(FileNotFoundError, match="there is no checkpoint here"):
        read_pickled_checkpoint(path)
    torch.save({"a": torch.arange(1000)}, path)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_pickled_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds a list"):
        read_pickled_checkpoint(path)
