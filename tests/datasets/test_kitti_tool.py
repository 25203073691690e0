from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

MakeTree = Callable[..., Path]


@pytest.fixture
def tool(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("kitti_tool", repository / "data_tools/kitti.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_check_of_a_good_tree(tool: ModuleType, make_tree: MakeTree, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["check", str(make_tree())]) == 0
    out = capsys.readouterr().out
    assert "4 frames of split train" in out
    assert "calib/     4 of 4\n" in out
    assert "image_2/   0 of 4\n" in out
    assert "points inside the range: 80." in out  # the wall behind the sensor is outside


def test_check_lists_missing_and_damaged_files(
    tool: ModuleType, make_tree: MakeTree, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_tree()
    cloud = root / "training/velodyne/000001.bin"
    cloud.write_bytes(cloud.read_bytes()[:-2])
    assert tool.main(["check", str(root)]) == 1
    assert "000001.bin" in capsys.readouterr().out
    (root / "training/calib/000003.txt").unlink()
    assert tool.main(["check", str(root)]) == 1
    assert "calib/     3 of 4; missing: 000003" in capsys.readouterr().out
    assert tool.main(["check", str(root), "--split", "nothing"]) == 1
    assert 'split="nothing"' in capsys.readouterr().err


def test_check_of_an_unlabelled_tree(tool: ModuleType, make_tree: MakeTree, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree(labels=False, calibration=False)
    assert tool.main(["check", str(root), "--split", "all"]) == 0
    assert "frames: 4 (0 labelled)" in capsys.readouterr().out
    assert tool.main(["check", str(root), "--range", "0", "0", "50", "1", "1", "51"]) == 1
    assert "Check units (metres) and sensor height" in capsys.readouterr().out


def test_prepare(tool: ModuleType, make_tree: MakeTree, capsys: pytest.CaptureFixture[str]) -> None:
    import cv2
    import numpy as np

    root = make_tree()
    (root / "training/image_2").mkdir()
    cv2.imwrite(str(root / "training/image_2/000001.png"), np.zeros((370, 1224), dtype=np.uint8))
    assert tool.main(["prepare", str(root)]) == 0
    assert (root / "image_shapes.csv").read_text().splitlines()[1:3] == ["000000,375,1242", "000001,370,1224"]
    assert "8 objects of Car, Pedestrian" in capsys.readouterr().out
    assert tool.main(["prepare", str(root)]) == 0
    assert "is there already" in capsys.readouterr().out
