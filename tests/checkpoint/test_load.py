from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from adperception.checkpoint import layout, save
from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.load import load_weights, read_metadata


class Model(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))
        self.head = nn.Linear(width, 2)


def write(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save.write_tensors(path, tensors, {"model_config": {"type": "Model"}, "kernel_layout": "KRSC"})
    return path


def test_all(tmp_path: Path) -> None:
    source, target = Model(), Model()
    report = load_weights(target, write(tmp_path / "m.safetensors", source.state_dict()))
    assert str(report) == "9/9 tensors loaded, 0 of the file unused"
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


def test_directory_is_verified(tmp_path: Path) -> None:
    source = Model()
    temporary = save.begin(tmp_path, 1)
    record = save.write_tensors(temporary / layout.MODEL_FILE, source.state_dict())
    directory = save.commit(temporary, tmp_path, 1, {"format_version": 1}, {layout.MODEL_FILE: record})
    assert len(load_weights(Model(), directory).loaded) == 9
    file = directory / layout.MODEL_FILE
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        load_weights(Model(), directory)


def test_what_a_file_is_comes_from_inside(tmp_path: Path) -> None:
    path = write(tmp_path / "misleading_second_name.safetensors", Model().state_dict())
    assert read_metadata(path) == {"model_config": {"type": "Model"}, "kernel_layout": "KRSC"}


def test_part_leaves_the_rest_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = Model(), Model()
    head = target.head.weight.detach().clone()
    path = write(tmp_path / "m.safetensors", source.state_dict())
    with caplog.at_level(logging.WARNING, logger="adperception"):
        report = load_weights(target, path, expect=["encoder."])
    assert str(report) == "7/7 tensors loaded, 2 of the file unused"
    assert [record.message for record in caplog.records] == [f"{path}: {report}: head.bias, head.weight"]
    assert torch.equal(target.encoder[0].weight, source.encoder[0].weight)
    assert torch.equal(target.head.weight, head)


def test_missing_and_unexpected_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    tensors = Model().state_dict()
    tensors["neck.weight"] = tensors.pop("head.weight")
    target = Model()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(
        CheckpointError,
        match=r"8 of 9 Model tensors matched\. Missing in the file: head.weight\. Not in the model: neck",
    ):
        load_weights(target, write(tmp_path / "m.safetensors", tensors))
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_missing_part(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"head.bias": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"0 of 7 Model tensors below encoder. matched"):
        load_weights(Model(), path, expect=["encoder."])
    with pytest.raises(CheckpointError, match=r"has no tensor below expect=\['backbone.'\]"):
        load_weights(Model(), path, expect=["backbone."])


def test_wrong_shapes_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", Model(5).state_dict())
    message = r'encoder.0.bias: file \(5,\), model \(4,\).* and 3 more.*written by a model of type "Model"'
    with pytest.raises(CheckpointError, match=message):
        load_weights(Model(4), path)


def test_foreign_checkpoints_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save.write_tensors(path, {"backbone_3d.conv1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"0 of 9 .* looks like an OpenPCDet checkpoint .*--from openpcdet"):
        load_weights(Model(), path)


def test_pickles_are_refused_unopened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "exploded"),))

    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="unpickling can execute code"):
        load_weights(Model(), path)
    path = path.rename(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_weights(Model(), path)
    assert not (tmp_path / "exploded").exists()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint here"):
        load_weights(Model(), tmp_path / "gone.safetensors")
