"""MGRAWA: workers are pulled to a mean in which those with small gradients weigh more; one weight per model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from adperception.optim.grawa import GradientWeighted
from adperception.optim.worker import Worker

__all__ = ["MGRAWA"]


@dataclass(frozen=True)
class MGRAWA(GradientWeighted):
    """Model-wise gradient-weighted averaging (Dimlioglu, Choromanska, AISTATS 2024, arXiv 2403.04206).

    A round with a_m, the norm of worker m's gradient, averaged over time:

        ``beta_m = (1 / a_m) / sum_k (1 / a_k)``,  ``C = sum_m beta_m x_m``,  ``x_m <- x_m + pull (C - x_m)``

    and, with a round every tau steps, after every local step ``x_m <- x_m + (proximal / tau) (C - x_m)`` with the last
    C. In words: small gradients are a sign of a flat, well-trained region, so these workers count more in the centre
    that all are pulled to.

    Args:
        pull: lambda.
        proximal: towards the last centre, spread over the steps between two rounds.
        norm_source: ``"probe"``: one extra mini-batch per round (the released method); ``"online"``: norms of the
            training gradients as they are after clipping, at no extra pass (the authors' wrapper variant).
        norm_decay: of the moving average of norms; ``None``: 0.9^8 with a probe, 0.85 online, as in the authors' code.
        norm_exponent: power of the norm; 1 in abstract and code.
        norm_eps: norms below it count as it, so that a zero norm gives a finite weight (and practically all of it).
        norm: of a whole model: ``"layer_sum"``, the sum of the tensors' L2 norms (authors' code), or ``"l2"``.
        reset_norms: forget the average after each round; ``None``: online only, as in the authors' code.

    A norm that is not finite weighs practically nothing; a worker with parameters that are not finite nothing at all.

    State: the average of norms (2), with a proximal term the last centre (P, replicated). Traffic: one all-reduce of
    P + 1 per round. Consensus: the plain mean, as in the authors' code.
    """

    norm: Literal["layer_sum", "l2"] = "layer_sum"
    reset_norms: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in ("layer_sum", "l2"):
            raise ValueError(f'MGRAWA: norm="{self.norm}" is unknown. Available: layer_sum, l2.')

    def weight_count(self, tensors: int) -> int:
        """One per model."""
        return 1

    def combine(self, norms: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The norm of the whole gradient."""
        whole = norms.sum(0, keepdim=True) if self.norm == "layer_sum" else norms.square().sum(0, keepdim=True).sqrt()
        return whole, None if present is None else present.any(0, keepdim=True)

    def round_done(self, worker: Worker) -> None:
        """Forget the norms, where the authors' code does."""
        reset = self.norm_source == "online" if self.reset_norms is None else self.reset_norms
        if reset:
            worker.state["norm_average"].zero_()
            worker.state["norm_count"].zero_()
