from __future__ import annotations

from typing import Any

import pytest
import torch

from adperception.models.heads.anchors import make_anchors, parse_anchor_classes
from adperception.structures import VoxelGrid

CAR: dict[str, Any] = dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.6, unmatched_iou=0.45)
CYCLIST: dict[str, Any] = dict(name="Cyclist", size=[1.76, 0.6, 1.73], bottom=-0.6, matched_iou=0.5, unmatched_iou=0.35)


def test_places_sizes_and_headings() -> None:
    """Rows reach from border to border of the range: six anchors on 20 m stand 4 m apart."""
    grid = VoxelGrid.create([0, -8, -3, 20, 8, 1], [0.5, 0.5, 0.1])
    anchors = make_anchors(parse_anchor_classes("SECOND", [CAR, CYCLIST]), grid, (5, 6))
    assert anchors.shape == (5, 6, 2, 2, 7)
    assert anchors[2, :, 0, 0, 0].tolist() == pytest.approx([0, 4, 8, 12, 16, 20])
    assert anchors[:, 3, 1, 1, 1].tolist() == pytest.approx([-8, -4, 0, 4, 8])
    assert anchors[1, 4, 0, 1].tolist() == pytest.approx([16, -4, -1.0, 3.9, 1.6, 1.56, 1.57])
    assert anchors[1, 4, 1, 0].tolist() == pytest.approx([16, -4, 0.265, 1.76, 0.6, 1.73, 0])
    assert anchors.dtype == torch.float32


def test_map_of_one_cell_is_refused() -> None:
    grid = VoxelGrid.create([0, -8, -3, 20, 8, 1], [0.5, 0.5, 0.1])
    with pytest.raises(ValueError, match="at least 2 x 2 cells, not 5 x 1"):
        make_anchors(parse_anchor_classes("SECOND", [CAR]), grid, (5, 1))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "classes is empty"),
        ([CAR, CAR], 'classes names "Car" twice'),
        ([CAR, {**CYCLIST, "sizes": 1}], r'classes\[1\]: "sizes" is not an option\. Did you mean "size"'),
        ([{k: v for k, v in CAR.items() if k != "bottom"}], r'classes\[0\] needs the option "bottom"'),
        ([{**CAR, "size": [3.9, 1.6]}], r"size=\[3.9, 1.6\] must be length, width and height"),
        ([{**CAR, "size": [3.9, -1.6, 1.0]}], r"size=\[3.9, -1.6, 1.0\] must be length, width and height"),
        ([{**CAR, "matched_iou": 0.4}], "does not hold for unmatched_iou=0.45 and matched_iou=0.4"),
    ],
)
def test_bad_values_are_named(classes: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_anchor_classes("SECOND", classes)
