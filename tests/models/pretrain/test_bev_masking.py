"""Invariants of the masks."""

from __future__ import annotations

import pytest
import torch

from adperception.engine.host_reads import HostReads
from adperception.models.pretrain.bev_masking import draw_bev_masks, masks_from_noise, non_empty_cells
from adperception.models.pretrain.hash_noise import draw_seed, hash_noise


def occupancy(share: float = 0.3, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 10, 14, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("mask_per", ["batch", "sample"])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_four_masks_partition_the_grid(mask_per: str, ratio: float) -> None:
    occupied = occupancy()
    masks = draw_bev_masks(occupied, ratio, mask_per, torch.Generator().manual_seed(1))
    cover = sum(m.int() for m in (masks.context_cells, masks.target_cells, masks.context_empty, masks.target_empty))
    assert torch.equal(cover, torch.ones_like(cover))
    assert torch.equal(masks.context_cells | masks.target_cells, occupied)
    assert torch.equal(masks.hidden, masks.target_cells | masks.target_empty)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.7])
def test_share_of_cells_is_exact(ratio: float) -> None:
    occupied = occupancy()
    batch = draw_bev_masks(occupied, ratio, "batch", torch.Generator().manual_seed(1))
    assert int(batch.context_cells.sum()) == int(int(occupied.sum()) * (1 - ratio))
    sample = draw_bev_masks(occupied, ratio, "sample", torch.Generator().manual_seed(1))
    for b in range(len(occupied)):
        assert int(sample.context_cells[b].sum()) == int(int(occupied[b].sum()) * (1 - ratio))
    per_sample = [int(batch.context_cells[b].sum()) for b in range(3)]
    assert per_sample != [int(int(occupied[b].sum()) * (1 - ratio)) for b in range(3)]


def test_smallest_draws_are_context_in_order_of_batch_y_x() -> None:
    occupied = torch.zeros(2, 2, 2, dtype=torch.bool)
    occupied[0, 0, 1] = occupied[0, 1, 0] = occupied[1, 0, 0] = occupied[1, 1, 1] = True
    masks = masks_from_noise(occupied, torch.tensor([0.9, 0.1, 0.2, 0.8]), torch.full((2, 2, 2), 0.5), 0.5)
    expected = torch.zeros_like(occupied)
    expected[0, 1, 0] = expected[1, 0, 0] = True
    assert torch.equal(masks.context_cells, expected)
    assert not masks.context_empty.any()  # 0.5 is not below 1 - 0.5


def test_same_generator_same_masks() -> None:
    draws = [draw_bev_masks(occupancy(), 0.5, "batch", torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(draws[0].context_cells, draws[1].context_cells)
    assert torch.equal(draws[0].context_empty, draws[1].context_empty)
    other = draw_bev_masks(occupancy(), 0.5, "batch", torch.Generator().manual_seed(8))
    assert not torch.equal(draws[0].context_cells, other.context_cells)


@pytest.mark.parametrize("mask_per", ["batch", "sample"])
def test_draws_mean_what_given_noise_means(mask_per: str) -> None:
    """The smallest draws of the occupied cells are context, whether they come as a list or as a map."""
    occupied = occupancy()
    noise = hash_noise(draw_seed(torch.Generator().manual_seed(3)), occupied.numel(), "cpu").view(occupied.shape)
    drawn = draw_bev_masks(occupied, 0.3, mask_per, torch.Generator().manual_seed(3))
    given = masks_from_noise(occupied, noise[occupied], noise, 0.3, mask_per)
    assert torch.equal(drawn.context_cells, given.context_cells)
    assert torch.equal(drawn.context_empty, given.context_empty)
    shown = float(drawn.context_empty.sum() / (~occupied).sum())
    assert 0.6 < shown < 0.8


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7, 0.9, 1 / 3])
def test_number_of_context_cells_is_rounded_as_python_does(ratio: float) -> None:
    """int(n * (1 - ratio)) in double precision: 10 * (1 - 0.9) is 0.9999999999999998."""
    for n in range(41):
        occupied = (torch.arange(40) < n).view(1, 5, 8)
        masks = draw_bev_masks(occupied, ratio, "batch", torch.Generator().manual_seed(n))
        assert int(masks.context_cells.sum()) == int(n * (1 - ratio))


def test_nothing_is_read_from_the_device() -> None:
    coordinates = torch.tensor([[0, 39, 7, 8], [0, 0, 7, 15], [1, 3, 8, 0]], dtype=torch.int32)
    with HostReads(cuda=False) as reads:
        for mask_per in ("batch", "sample"):
            draw_bev_masks(non_empty_cells(coordinates, 2, (2, 2), 8), 0.5, mask_per, torch.Generator().manual_seed(0))
    assert not reads.places


def test_no_occupied_cell_at_all() -> None:
    masks = draw_bev_masks(torch.zeros(2, 4, 4, dtype=torch.bool), 0.5, "batch", torch.Generator().manual_seed(0))
    assert not masks.context_cells.any()
    assert not masks.target_cells.any()
    assert bool((masks.context_empty ^ masks.target_empty).all())


def test_cells_of_voxels() -> None:
    coordinates = torch.tensor([[0, 39, 7, 8], [0, 0, 7, 15], [1, 3, 8, 0]], dtype=torch.int32)
    cells = non_empty_cells(coordinates, 2, (2, 2), 8)
    assert cells.nonzero().tolist() == [[0, 0, 1], [1, 1, 0]]


def test_unknown_share() -> None:
    with pytest.raises(ValueError, match=r'mask_per="frame" is unknown\. Available: batch, sample'):
        masks_from_noise(occupancy(), torch.rand(int(occupancy().sum())), torch.rand(3, 10, 14), 0.5, "frame")
