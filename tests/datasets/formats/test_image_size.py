from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats import read_image_shapes, read_image_size, write_image_shapes


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_size_from_the_header(tmp_path: Path, suffix: str) -> None:
    import cv2

    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), np.zeros((37, 124, 3), dtype=np.uint8))
    assert read_image_size(path) == (37, 124)
    path.write_bytes(path.read_bytes()[:20])  # the header is needed, nothing else
    with pytest.raises(ValueError, match=r"a\.\w+: no PNG or JPEG header"):
        read_image_size(path)


def test_shapes_table(tmp_path: Path) -> None:
    shapes = {"000002": (375, 1242), "000000": (370, 1224)}
    write_image_shapes(tmp_path / "s.csv", shapes)
    assert (tmp_path / "s.csv").read_text() == "frame,height,width\n000000,370,1224\n000002,375,1242\n"
    assert read_image_shapes(tmp_path / "s.csv") == shapes


@pytest.mark.parametrize("text", ["frame,height\n000000,370\n", "frame,height,width\n000000,370,wide\n"])
def test_a_bad_row_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ValueError, match=r"s\.csv:2: expected"):
        read_image_shapes(tmp_path / "s.csv")


@pytest.mark.real_data
def test_real_png_agrees_with_the_table(real_data: Path) -> None:
    root = real_data / "lidar/kitti"
    size = read_image_size(root / "training/image_2/000001.png")
    assert size == read_image_shapes(root / "image_shapes.csv")["000001"]
