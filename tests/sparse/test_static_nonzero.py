"""Positions of true entries of a known number."""

from __future__ import annotations

import pytest
import torch

from adperception.sparse import static_nonzero


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("length", [0, 1, 2, 1000])
def test_equals_nonzero(share: float, length: int) -> None:
    mask = torch.rand(length, generator=torch.Generator().manual_seed(length)) < share
    expected = mask.nonzero().squeeze(1)
    positions = static_nonzero(mask, len(expected))
    assert positions.dtype == torch.int64
    assert torch.equal(positions, expected)


def test_too_small_a_number_does_not_pass_unseen_on_a_cpu() -> None:
    with pytest.raises(RuntimeError, match="out of bounds"):
        static_nonzero(torch.ones(5, dtype=torch.bool), 2)
