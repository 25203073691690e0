from __future__ import annotations

import torch

from adperception.models.radar.wrapped_convolution import ConvNorm, upsample_to


def test_columns_wrap_and_rows_end() -> None:
    torch.manual_seed(0)
    layer = ConvNorm(2, 3).eval()
    maps = torch.rand(1, 2, 6, 8)
    rolled = layer(maps.roll(3, dims=-1))
    torch.testing.assert_close(rolled, layer(maps).roll(3, dims=-1))
    padded = torch.cat([torch.zeros(1, 2, 1, 8), maps, torch.zeros(1, 2, 1, 8)], dim=2)
    torch.testing.assert_close(layer(padded)[:, :, 1:-1], layer(maps))
    assert layer[0].bias is None


def test_strides_round_up() -> None:
    assert ConvNorm(1, 1, stride=(2, 2))(torch.rand(2, 1, 7, 6)).shape == (2, 1, 4, 3)
    assert ConvNorm(1, 1, stride=(2, 1))(torch.rand(2, 1, 8, 6)).shape == (2, 1, 4, 6)


def test_upsampling_fits_any_size() -> None:
    maps = torch.tensor([[[[1.0, 2.0]]]])
    assert upsample_to(maps, torch.zeros(1, 1, 1, 4)).tolist() == [[[[1.0, 1.0, 2.0, 2.0]]]]
    assert upsample_to(maps, torch.zeros(1, 1, 3, 3)).shape == (1, 1, 3, 3)
