from __future__ import annotations

import ast
from pathlib import Path

import pytest

from adperception.config import Config, format_config, load_config
from adperception.located_dict import location_of


@pytest.fixture
def write(tmp_path: Path) -> object:
    def _write(text: str, name: str = "config.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return _write


@pytest.fixture
def family(write) -> Path:  # type: ignore[no-untyped-def]
    write('model = dict(type="A", size=(1, 2))\ntrain = dict(\n    steps=20,\n    lr=1e-3,\n)\n', "base.py")
    return write('"""Doc."""\n\n_base_ = "base.py"\ntrain = dict(lr=-2.5)\nitems = [dict(a=1), {"b": None}]\n')


def test_base_is_merged_and_every_key_knows_its_line(family: Path) -> None:
    config = load_config(family)
    assert config.values == {
        "model": {"type": "A", "size": (1, 2)},
        "train": {"steps": 20, "lr": -2.5},
        "items": [{"a": 1}, {"b": None}],
    }
    assert location_of(config.values["train"], "lr") == f"{family}:4  "
    assert location_of(config.values["train"], "steps") == f"{family.with_name('base.py')}:3  "
    assert location_of(config.values["items"][1], "b") == f"{family}:5  "
    assert location_of({"plain": 1}, "plain") == ""


def test_overrides_are_typed_and_echoed(family: Path) -> None:
    config = load_config(family, ["train.lr=3", "items.0.a=7", "model.size=[3, 4]", "items.1.b=x", "train.new=True"])
    assert config.values["train"] == {"steps": 20, "lr": 3.0, "new": True}
    assert isinstance(config.values["train"]["lr"], float)
    assert config.values["model"]["size"] == (3, 4)
    assert config.values["items"] == [{"a": 7}, {"b": "x"}]
    assert config.overrides[0] == "--cfg-options train.lr: -2.5 -> 3.0"
    assert config.overrides[-1] == "--cfg-options train.new: (not in the file) True"
    assert location_of(config.values["train"], "lr") == "--cfg-options  "


def test_how_processes_come_together_may_be_given_on_the_command_line_alone(family: Path) -> None:
    options = ["distributed.type=DPSGD", "distributed.schedule.type=FixedSchedule", "distributed.schedule.graph=ring"]
    config = load_config(family, options)
    assert config.values["distributed"] == {
        "type": "DPSGD",
        "schedule": {"type": "FixedSchedule", "graph": "ring"},
    }
    assert location_of(config.values["distributed"]["schedule"], "graph") == "--cfg-options  "
    assert config.overrides[2] == "--cfg-options distributed.schedule.graph: (not in the file) 'ring'"
    with pytest.raises(ValueError, match=r"distributed.pull is 0.5; replace the whole value"):
        load_config(family, ["distributed.pull=0.5", "distributed.pull.x=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "trian.lr=3",
            r'"trian" is not a section of the config\. Did you mean "train"\? Available: model, train, items',
        ),
        ("train.lr=fast", r"the value is str 'fast', but the config has float -2.5 there"),
        ("train.steps=2.5", "the value is float 2.5, but the config has int 20"),
        ("train.steps=True", "the value is bool True, but the config has int 20"),
        ("train=3", "the value is int 3, but the config has LocatedDict"),
        ("train.lr", "write key=value"),
        ("model.size.0=3", r"model.size is \(1, 2\); replace the whole value"),
        ("items.5.a=1", r'"5" is not a section of items'),
    ],
)
def test_bad_overrides(family: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(family, [override])


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("import os\n", 1, "`import os` is not a plain value"),
        ("a = 1\nb = __import__('os').getcwd()\n", 2, "not a plain value"),
        ("a = 1\nb = a\n", 2, "`a` is not a plain value"),
        ("a = 2 * 3\n", 1, "`2 . 3` is not a plain value"),
        ("a = dict(b=open('x'))\n", 1, "not a plain value"),
        ("a = dict([('b', 1)])\n", 1, "not a plain value"),
        ("a = b'bytes'\n", 1, "not a plain value"),
        ("a = f'{1}'\n", 1, "not a plain value"),
        ("a = dict(\n    b=1,\n    c=[x for x in (1,)],\n)\n", 3, "not a plain value"),
        ("a = dict(b=1\n", 1, "is not valid Python"),
        ("_base_ = ['a.py', 'b.py']\n", 1, "must be one file name"),
        ("\n_base_ = 'pkg::mmdet/configs/x.py'\n", 2, r'another installed package \("pkg::"\). That is not supported'),
    ],
)
def test_only_plain_values(write, text: str, line: int, message: str) -> None:  # type: ignore[no-untyped-def]
    path = write(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}:{line}  ")


def test_a_config_is_not_executed_before_it_is_checked(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    marker = tmp_path / "executed"
    with pytest.raises(ValueError, match="not a plain value"):
        load_config(write(f"open({str(marker)!r}, 'w')\n"))
    assert not marker.exists()


def test_one_base_level(write) -> None:  # type: ignore[no-untyped-def]
    write("a = 1\n", "first.py")
    write('_base_ = "first.py"\n', "second.py")
    with pytest.raises(ValueError, match="one level only"):
        load_config(write('_base_ = "second.py"\n'))


def test_missing_files(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FileNotFoundError, match=r"nothing\.py does not exist"):
        load_config(tmp_path / "nothing.py")
    with pytest.raises(FileNotFoundError, match=r'config.py:1  _base_="gone.py" does not exist'):
        load_config(write('_base_ = "gone.py"\n'))


def test_printed_config_is_a_config_again(family: Path, write) -> None:  # type: ignore[no-untyped-def]
    config = load_config(family)
    text = format_config(config.values)
    ast.parse(text)
    assert load_config(write(text, "printed.py")).values == config.values


def test_hash_is_of_the_values(family: Path, write) -> None:  # type: ignore[no-untyped-def]
    config = load_config(family)
    same: Config = load_config(write("# a comment\n" + format_config(config.values), "same.py"))
    assert config.sha256() == same.sha256()
    assert config.sha256() != load_config(family, ["train.steps=21"]).sha256()


def test_every_config_of_the_repository_parses(repository: Path) -> None:
    paths = sorted((repository / "configs").rglob("*.py"))
    assert paths
    for path in paths:
        load_config(path)
