from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adperception.models.pretrain.unit_norm import unit_norm


def test_float32_is_what_torch_gives_also_under_autocast() -> None:
    vectors = torch.randn(2, 256, 4, 5)
    vectors[0, :, 0, 0] = 0
    expected = F.normalize(vectors, dim=1)
    assert torch.equal(unit_norm(vectors), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(unit_norm(vectors), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_and_sums_in_float32(dtype: torch.dtype) -> None:
    vectors = (torch.randn(2, 4096, 3) * 8).to(dtype)  # the squares add up to 262144, past float16's largest number
    vectors[1, :, 2] = 0
    with torch.autocast("cpu", torch.bfloat16):
        unit = unit_norm(vectors)
    assert unit.dtype == dtype
    assert bool(unit.isfinite().all())
    # One rounding of the length and one of the quotient.
    torch.testing.assert_close(
        unit.float(), F.normalize(vectors.float(), dim=1), rtol=2 * torch.finfo(dtype).eps, atol=1e-7
    )
