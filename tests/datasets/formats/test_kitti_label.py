from __future__ import annotations

from pathlib import Path

import pytest

from adperception.datasets.formats import KittiObject, read_labels, write_labels

CAR = "Car 0.00 0 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57"


def test_columns_land_in_the_right_attributes(tmp_path: Path) -> None:
    path = tmp_path / "000001.txt"
    path.write_text(CAR + " 0.75\n\n")
    (car,) = read_labels(path)
    assert car == KittiObject(
        "Car", 0.0, 0, 1.85, (387.63, 181.54, 423.81, 203.12), (1.67, 1.87, 3.69), (-16.53, 2.39, 58.49), 1.57, 0.75
    )


def test_a_line_with_14_columns_names_file_line_and_fix(tmp_path: Path) -> None:
    path = tmp_path / "000001.txt"
    path.write_text(CAR + "\n" + CAR.rsplit(" ", 1)[0] + "\n")
    with pytest.raises(ValueError, match=r"000001\.txt:2: .*15 columns.*has 14.*rotation_y.*Write the missing ones"):
        read_labels(path)


@pytest.mark.parametrize(
    ("old", "new", "column"), [("58.49", "far", "z"), ("1.57", "nan", "rotation_y"), (" 0 ", " 0.5 ", "occlusion")]
)
def test_a_value_that_is_no_number_is_named(tmp_path: Path, old: str, new: str, column: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(CAR.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"a\.txt:1: .*{column}"):
        read_labels(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"000009\.txt"):
        read_labels(tmp_path / "000009.txt")


@pytest.mark.parametrize(
    ("height_px", "occlusion", "truncation", "difficulty"),
    [
        (39, 0, 0.15, 0),
        (38.9, 0, 0.0, 1),
        (60, 1, 0.3, 1),
        (60, 0, 0.16, 1),
        (24, 2, 0.5, 2),
        (23.9, 0, 0, -1),
        (60, 3, 0, -1),
    ],
)
def test_difficulty(height_px: float, occlusion: int, truncation: float, difficulty: int) -> None:
    o = KittiObject("Car", truncation, occlusion, 0, (0, 100, 10, 100 + height_px), (1, 1, 1), (0, 0, 9), 0)
    assert o.difficulty == difficulty


@pytest.mark.real_data
def test_real_labels_are_written_as_they_were(real_data: Path, tmp_path: Path) -> None:
    paths = sorted((real_data / "lidar/kitti/training/label_2").glob("*.txt"))
    assert paths
    for path in paths:
        write_labels(tmp_path / path.name, read_labels(path))
        assert (tmp_path / path.name).read_text().strip() == path.read_text().strip(), path.name
