from __future__ import annotations

import pytest
import torch

from adperception.models.radar.center_detector import CenterDetector
from adperception.models.radar.erase_net_sizes import ERASE_NET_SIZES


@pytest.mark.parametrize(("size", "parameters"), [("small", 350_661), ("medium", 786_917), ("large", 1_035_053)])
def test_parameters(size: str, parameters: int) -> None:
    """The fact sheet's count for T = 5 and three classes (0.79 M and 1.04 M for the larger ones)."""
    detector = CenterDetector(10, 3, ERASE_NET_SIZES[size].detector)
    assert sum(p.numel() for p in detector.parameters()) == parameters


@pytest.mark.parametrize(("rows", "dopplers"), [(256, 64), (64, 16), (30, 10)])
def test_heatmap_has_every_second_row_and_all_doppler_columns(rows: int, dopplers: int) -> None:
    maps = CenterDetector(4, 2, (4, 6, 8, 10))(torch.rand(1, 4, rows, dopplers))
    assert maps.heatmap.shape == (1, 2, rows // 2, dopplers)
    assert maps.offset.shape == (1, 2, rows // 2, dopplers)


def test_scores_start_at_a_tenth() -> None:
    torch.manual_seed(0)
    maps = CenterDetector(4, 3, (4, 6, 8, 10))(torch.rand(2, 4, 32, 16))
    assert 0.05 < float(maps.heatmap.detach().sigmoid().mean()) < 0.2


def test_doppler_wraps_around() -> None:
    torch.manual_seed(0)
    detector = CenterDetector(2, 3, (4, 6, 8, 10)).eval()
    maps = torch.rand(1, 2, 32, 16)
    turned = detector(maps.roll(4, dims=-1)).heatmap
    torch.testing.assert_close(turned, detector(maps).heatmap.roll(4, dims=-1))
