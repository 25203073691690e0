from __future__ import annotations

import itertools

import pytest
import torch

from adperception.checkpoint.convert_mvrss import from_mvrss, to_mvrss
from adperception.engine.multiply_adds import multiply_adds_of
from adperception.models.radar.peak_convolution import PeakConv
from adperception.models.radar.pkcin_net import PKCInNet
from adperception.structures import RadarBatch
from tests.models.radar.view_frames import view_frames


def ring(reach: int) -> list[tuple[int, int]]:
    """Clockwise by sides: top row, right column, bottom row, left column; rows from the left, columns from the top."""
    across, down = range(-reach, reach + 1), range(-reach + 1, reach)
    top, bottom = [(-reach, c) for c in across], [(reach, c) for c in across]
    return [*top, *((r, reach) for r in down), *bottom, *((r, -reach) for r in down)]


@pytest.mark.parametrize(("guard_cells", "cells"), [(0, 8), (1, 16), (2, 24)])
def test_twin(guard_cells: int, cells: int) -> None:
    layer, image = PeakConv(2, 3, guard_cells), torch.randn(2, 2, 6, 5)
    around = ring(guard_cells + 1)
    assert len(around) == cells
    weight, bias = layer.peak_conv.weight.detach(), layer.peak_conv.bias
    assert weight.shape[2:].numel() == cells
    assert bias is not None
    expected = torch.zeros(2, 3, 6, 5)
    for row, column in itertools.product(range(6), range(5)):
        total = bias.detach().clone().expand(2, 3).clone()
        for number, (down, right) in enumerate(around):
            r, c = row + down, column + right
            there = image[:, :, r, c] if 0 <= r < 6 and 0 <= c < 5 else torch.zeros(2, 2)
            total += (image[:, :, row, column] - there) @ weight[:, :, number // 4, number % 4].T
        expected[:, :, row, column] = total
    torch.testing.assert_close(layer(image).detach(), expected, rtol=1e-5, atol=1e-5)


def test_flat_surroundings_say_nothing() -> None:
    layer = PeakConv(4, 4)
    inside = layer(torch.full((1, 4, 9, 9), 7.0))[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inside, layer.peak_conv.bias.view(1, 4, 1, 1).expand_as(inside), atol=1e-4, rtol=0)  # type: ignore[union-attr]


def test_negative_guard_is_refused() -> None:
    with pytest.raises(ValueError, match="guard_cells=-1"):
        PKCInNet(guard_cells=-1)


@pytest.mark.parametrize(("guard_cells", "parameters"), [(1, 6_319_112), (2, 7_105_544)])
def test_parameters(guard_cells: int, parameters: int) -> None:
    assert sum(p.numel() for p in PKCInNet(guard_cells=guard_cells).parameters()) == parameters


def test_multiply_adds() -> None:
    """The published 103.1 G count 16 weights per peak convolution; the centre's own product is one more."""
    positions = 2 * (128 * 64 + 128 * 128 + 128 * 64)
    counted = multiply_adds_of(PKCInNet())[""]
    assert counted.total - positions * 128 * 128 == 103_133_741_056
    assert counted.not_counted == ()


def test_trains_on_every_parameter() -> None:
    frames = view_frames(3)
    model, losses = PKCInNet(), []
    model.before_training(iter(frames))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(8):
        optimizer.zero_grad()
        total = model(RadarBatch.from_frames(frames)).total
        total.backward()
        assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_released_names() -> None:
    state = PKCInNet(normalization="carrada_tvt", class_weights="carrada").state_dict()
    theirs = to_mvrss(state)
    assert theirs["ra_encoding_branch.double_pkc_block.pk_conv2.peak_conv.weight"].shape == (128, 128, 4, 4)
    assert not any("double_conv_block2" in name for name in theirs if "encoding_branch" in name)
    assert from_mvrss(theirs).keys() == state.keys()
