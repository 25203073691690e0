from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("pyarrow")


@pytest.fixture
def tool(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("argoverse2_tool", repository / "data_tools/argoverse2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.real_data
def test_check_and_suggest(tool: ModuleType, real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(real_data / "lidar/av2")
    assert tool.main(["check", root, "--split", "val"]) == 0
    out = capsys.readouterr().out
    assert "2 sweeps of 1 logs, labels: True" in out
    assert "154 annotated sweeps have no cloud (first: 315966253660357000.feather)" in out
    assert "boxes with as many points as the labels state: 162 of 162" in out
    assert tool.main(["suggest", root, "--split", "val", "--class-map", "coarse", "--classes", "Vehicle"]) == 0
    out = capsys.readouterr().out
    assert 'class_map="coarse"' in out
    assert 'dict(name="Vehicle", size=[4.' in out
    assert "Pedestrian" not in out


def test_a_missing_tree(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["check", str(tmp_path)]) == 1
    assert "sensor/train does not exist" in capsys.readouterr().err
