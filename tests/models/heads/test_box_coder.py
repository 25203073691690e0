from __future__ import annotations

import math

import pytest
import torch

from adperception.models.heads.box_coder import (
    DIRECTION_OFFSET,
    decode_boxes,
    direction_bins,
    encode_boxes,
    limit_period,
    turn_to_bins,
)


def test_by_hand() -> None:
    box = torch.tensor([[4.0, 1.0, 0.5, 8.0, 3.0, 1.0, 1.0]])
    anchor = torch.tensor([[1.0, 5.0, 0.0, 4.0, 3.0, 2.0, 0.25]])
    assert encode_boxes(box, anchor)[0].tolist() == pytest.approx(
        [3 / 5, -4 / 5, 0.25, math.log(2), 0, -math.log(2), 0.75]
    )


def test_decoding_undoes_encoding() -> None:
    boxes, anchors = torch.rand(2, 50, 7, dtype=torch.float64).add(0.1).unbind()
    assert torch.allclose(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes)
    batch = torch.stack([encode_boxes(boxes, anchors)] * 3)
    assert torch.equal(decode_boxes(batch, anchors)[2], decode_boxes(batch[2], anchors))


def test_limit_period() -> None:
    angles = torch.tensor([-7.0, -0.1, 0.0, 3.1, 3.2, 9.5])
    limited = limit_period(angles, math.pi)
    assert bool(((limited >= 0) & (limited < math.pi)).all())
    assert torch.allclose((angles - limited) / math.pi, ((angles - limited) / math.pi).round())


@pytest.mark.parametrize("offset", [DIRECTION_OFFSET, -math.pi / 2, 0.0, 3.0])
@pytest.mark.parametrize("turns", [-2, 0, 3])
def test_directions(turns: int, offset: float) -> None:
    """Bin 0 is half a turn from the offset on; each heading is recovered from itself modulo half a turn and its bin."""
    yaw = torch.linspace(-math.pi, math.pi, 201, dtype=torch.float64)
    yaw = yaw[(yaw - offset).sin().abs() > 1e-6]
    bins = direction_bins(yaw + 2 * math.pi * turns, offset)
    assert torch.equal(bins == 0, (yaw - offset).sin() > 0)
    recovered = turn_to_bins(yaw + math.pi * (turns + 1), bins, offset)
    assert torch.allclose(torch.exp(1j * recovered), torch.exp(1j * yaw))


def test_directions_begin_where_openpcdet_has_them_unless_told_otherwise() -> None:
    yaw = torch.tensor([0.785, 0.786, 0.785 + math.pi, 0.786 + math.pi])
    assert direction_bins(yaw).tolist() == [1, 0, 0, 1]
    assert torch.allclose(turn_to_bins(yaw + math.pi, torch.tensor([1, 0, 0, 1])).cos(), yaw.cos(), atol=1e-6)
