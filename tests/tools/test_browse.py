from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import cv2
import pytest

CONFIG = """
model = dict(
    type="ADLJEPA",
    point_cloud_range=[0.0, -12.8, -3.0, 25.6, 12.8, {z_max}],
    voxel_size=[0.1, 0.1, 0.1],
)
train_dataset = dict(
    type="Folder",
    root="{root}",
    transforms=[dict(type="RandomWorldFlip"), dict(type="PointShuffle")],
)
optimizer = dict(type="AdamW", lr=1e-3)
train = dict(steps=1, batch_size=1)
"""


@pytest.fixture
def tool(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("browse", repository / "tools/browse.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.real_data
def test_pictures_of_real_frames(tool: ModuleType, real_data: Path, tmp_path: Path) -> None:
    config = tmp_path / "small.py"
    config.write_text(CONFIG.format(root=real_data / "lidar/kitti/training/velodyne_reduced", z_max=1.0))
    assert tool.main([str(config), "--out", str(tmp_path / "out"), "--frames", "2"]) == 0
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert len(pictures) == 2
    for path in pictures:
        picture = cv2.imread(str(path))
        assert picture.std() > 20  # not blank
    assert [p.name[:4] for p in pictures] == ["000_", "001_"]


@pytest.mark.real_data
def test_a_config_that_cannot_work_is_one_line(
    tool: ModuleType, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.py"
    config.write_text(CONFIG.format(root=tmp_path / "nowhere", z_max=1.0))
    assert tool.main([str(config)]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err
    text = CONFIG.format(root=real_data / "lidar/kitti/training/velodyne_reduced", z_max=94.0)
    config.write_text(text.replace("-3.0, 25.6", "90.0, 25.6"))
    assert tool.main([str(config), "--out", str(tmp_path), "--frames", "1"]) == 1
    assert "voxelize: 0 of" in capsys.readouterr().err
