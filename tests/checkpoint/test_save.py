from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adperception.checkpoint import layout, save
from adperception.checkpoint.layout import CheckpointError


def write(root: Path, step: int, value: float = 1.0) -> Path:
    temporary = save.begin(root, step)
    record = save.write_tensors(temporary / layout.MODEL_FILE, {"a": torch.full((3,), value)})
    return save.commit(temporary, root, step, {"format_version": 1, "step": step}, {layout.MODEL_FILE: record})


def test_round_trip(tmp_path: Path) -> None:
    directory = write(tmp_path, 12)
    assert directory.name == "step_00000012"
    assert layout.verify(directory)["step"] == 12
    assert load_file(directory / layout.MODEL_FILE)["a"].tolist() == [1.0, 1.0, 1.0]


def test_tensors_of_any_layout(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    tensors = {"transposed": base.T, "view": base[0], "same": base[0], "scalar": torch.tensor(3, dtype=torch.int64)}
    save.write_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_equal_checkpoints_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save.write_tensors(
            tmp_path / name, {"x": torch.ones(2), "y": torch.ones(1)}, {"one": 1, "two": [2], "three": "3"}
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", [layout.MODEL_FILE, layout.STATE_FILE])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "empty"])
def test_every_damage_is_found_and_named(tmp_path: Path, name: str, damage: str) -> None:
    path = write(tmp_path, 1) / name
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[:-3])
    elif damage == "flip":
        position = content.index(b'"step"') + 1 if name == layout.STATE_FILE else len(content) - 1
        content[position] ^= 1
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=name):
        layout.verify(path.parent)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    directory = write(tmp_path, 1)
    (directory / layout.STATE_FILE).write_bytes(layout.seal({"format_version": 99}, {}))
    with pytest.raises(CheckpointError, match="format version 99; this adperception reads version 1"):
        layout.verify(directory)


def test_newest_complete_names_the_damaged(tmp_path: Path) -> None:
    for step in (3, 20, 100):
        write(tmp_path, step)
    (tmp_path / "step_00000100" / layout.MODEL_FILE).write_bytes(b"")
    (tmp_path / "step_notes").mkdir()
    said: list[str] = []
    found = layout.newest_complete(tmp_path, said.append)
    assert found is not None
    assert found[0].name == "step_00000020"
    assert len(said) == 1
    assert "step_00000100" in said[0]
    assert layout.newest_complete(tmp_path / "nothing", said.append) is None


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 8):
        write(tmp_path, step)
    save.prune(tmp_path, keep=3, protected_steps=[2])
    assert [path.name[-1] for path in layout.list_checkpoints(tmp_path)] == ["7", "6", "5", "2"]
    assert not list(tmp_path.glob(".*"))


def test_old_ones_stay_if_the_new_one_does_not_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)
    real = layout.file_sha256
    monkeypatch.setattr(layout, "file_sha256", lambda path: "0" if "00000002" in str(path) else real(path))
    with pytest.raises(CheckpointError, match="SHA-256"):
        write(tmp_path, 2)
    found = layout.newest_complete(tmp_path, lambda message: None)
    assert found is not None
    assert found[0].name == "step_00000001"


def test_same_step_again_replaces_it(tmp_path: Path) -> None:
    write(tmp_path, 1, value=1.0)
    directory = write(tmp_path, 1, value=2.0)
    assert float(load_file(directory / layout.MODEL_FILE)["a"][0]) == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_kill_between_the_two_renames_of_a_replacement(tmp_path: Path) -> None:
    directory = write(tmp_path, 1)
    directory.rename(tmp_path / ".step_00000001.replaced.tmp")
    save.begin(tmp_path, 2)
    assert save.remove_leftovers(tmp_path) == [".step_00000001.replaced.tmp", ".step_00000002.tmp"]
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    layout.verify(directory)


def test_failure_names_cause_and_what_is_left(tmp_path: Path) -> None:
    write(tmp_path, 4)
    full = save.describe_failure(OSError(errno.ENOSPC, "No space left on device"), tmp_path, 5)
    assert "no space left on the disk" in str(full)
    assert "step_00000004" in str(full)
    assert "--resume" in str(full)
    denied = save.describe_failure(PermissionError(errno.EACCES, "Permission denied"), tmp_path / "new", 5)
    assert "Permission denied" in str(denied)
    assert "no earlier checkpoint" in str(denied)


def test_state_is_plain_json(tmp_path: Path) -> None:
    state = json.loads((write(tmp_path, 1) / layout.STATE_FILE).read_text())
    assert set(state) == {"format_version", "step", "files", "state_sha256"}
