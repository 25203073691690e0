from __future__ import annotations

import re
from pathlib import Path

import pytest

from adperception.config import load_config
from adperception.registry import Registry, build, check


@pytest.fixture
def things() -> Registry:
    registry = Registry("thing", "adperception.structures")

    @registry.register_module()
    class Voxelizer:
        def __init__(self, size: float, levels: int = 3, context: str = "") -> None:
            self.values = (size, levels, context)

    return registry


def section(tmp_path: Path, text: str) -> dict[str, object]:
    path = tmp_path / "config.py"
    path.write_text(f"seed = 1\nthing = dict(\n{text}\n)\n", encoding="utf-8")
    value: dict[str, object] = load_config(path).values["thing"]
    return value


def test_build(tmp_path: Path, things: Registry) -> None:
    assert build(things, section(tmp_path, 'type="Voxelizer",\nsize=0.1'), context="c").values == (0.1, 3, "c")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('type="Voxeliser",\nsize=0.1', 3, 'type="Voxeliser" is not a registered thing. Did you mean "Voxelizer"?'),
        ('type="Voxelizer",\nsize=0.1,\nlevel=2', 5, '"level" is not an option of Voxelizer. Did you mean "levels"?'),
        ('type="Voxelizer",\nsize=0.1,\ncontext="x"', 5, '"context" is not an option of Voxelizer.'),
        ('type="Voxelizer",\nlevels=2', 3, 'Voxelizer needs the option "size".'),
    ],
)
def test_errors_name_file_line_and_nearest(
    tmp_path: Path, things: Registry, text: str, line: int, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check(things, section(tmp_path, text), context="c")
    assert str(caught.value).startswith(f"{tmp_path / 'config.py'}:{line}  ")


def test_missing_type(things: Registry) -> None:
    with pytest.raises(ValueError, match=r"type is missing.* Available: Voxelizer"):
        build(things, {"size": 1})


def test_double_registration_names_both_places(things: Registry) -> None:
    class Voxelizer:
        pass

    here = re.escape(__file__)
    with pytest.raises(ValueError, match=rf'thing "Voxelizer" is registered twice: {here}:\d+ and {here}:\d+\.'):
        things.register_module(module=Voxelizer)


def test_every_module_of_the_package_is_searched() -> None:
    from adperception.registry import OPTIMIZERS, SCHEDULES

    assert check(SCHEDULES, {"type": "OneCycle"}).__name__ == "OneCycle"
    assert check(OPTIMIZERS, {"type": "AdamW"}, params=()).__name__ == "AdamW"
