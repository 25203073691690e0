from __future__ import annotations

import numpy as np
import pytest

from adperception.structures import Boxes3D

BOXES = Boxes3D(np.array([[1, 2, 3, 4, 2, 1, 0], [5, 5, 5, 4, 2, 1, np.pi / 2]], dtype=np.float32), ("Car", "Van"))


@pytest.mark.parametrize(
    ("index", "names"),
    [([1, 0], ("Van", "Car")), (np.array([False, True]), ("Van",)), ([], ()), (np.array([False, False]), ())],
)
def test_select(index: object, names: tuple[str, ...]) -> None:
    assert BOXES.select(index).names == names  # type: ignore[arg-type]
    assert BOXES.select(index).boxes.shape == (len(names), 7)  # type: ignore[arg-type]
    assert len(Boxes3D.empty().select([])) == 0
    assert len(Boxes3D.empty().select(np.zeros(0, dtype=bool))) == 0


def test_corners_turn_counter_clockwise() -> None:
    first, second = BOXES.corners()
    np.testing.assert_allclose(first[0], [3, 3, 2.5])  # front left, bottom
    np.testing.assert_allclose(first[6], [-1, 1, 3.5])  # rear right, top
    np.testing.assert_allclose(second[0], [4, 7, 4.5], atol=1e-6)  # turned by 90 degrees: front is +y, left is -x


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 6\)"):
        Boxes3D(np.zeros((2, 6), dtype=np.float32), ("a", "b"))
    with pytest.raises(ValueError, match="2 boxes but 1 class names"):
        Boxes3D(np.zeros((2, 7), dtype=np.float32), ("a",))
