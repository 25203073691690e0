"""LGRAWA: workers are pulled to a mean in which those with small gradients weigh more; one weight per tensor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from adperception.optim.grawa import GradientWeighted

__all__ = ["LGRAWA"]


@dataclass(frozen=True)
class LGRAWA(GradientWeighted):
    """Layer-wise gradient-weighted averaging (Dimlioglu, Choromanska, AISTATS 2024, arXiv 2403.04206).

    As ``MGRAWA``, with a norm a_{m,l} and therefore weights beta_{m,l} of its own for every parameter tensor l:

        ``beta_{m,l} = (1 / a_{m,l}) / sum_k (1 / a_{k,l})``,  ``C_l = sum_m beta_{m,l} x_{m,l}``,
        ``x_m <- x_m + pull (C - x_m)``

    In words: each layer's centre follows the workers for which that layer is settled. A tensor that has had no gradient
    on a worker weighs practically nothing there.

    Args:
        pull: as ``MGRAWA``.
        proximal: as ``MGRAWA``.
        norm_source: as ``MGRAWA``.
        norm_decay: as ``MGRAWA``.
        norm_exponent: as ``MGRAWA``.
        norm_eps: as ``MGRAWA``.

    State: averages of norms (2 L), with a proximal term the last centre (P, replicated). Traffic: one all-reduce of
    P + L per round. Consensus: the plain mean.
    """

    def weight_count(self, tensors: int) -> int:
        """One per tensor."""
        return tensors

    def combine(self, norms: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """As they are."""
        return norms, present
