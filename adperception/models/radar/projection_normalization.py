"""Normalisation of range-Doppler projections of cubes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from adperception.models.radar.normalization import Preset
from adperception.models.radar.range_doppler_projections import range_doppler_projections
from adperception.models.radar.seen import Seen
from adperception.structures import RadarFrame

__all__ = ["ProjectionNormalization"]

_CARRADA = ((58.47112418237332, 3.748725977590863), (38.9, 3.748725977590863))
"""Mean and standard deviation in decibels. The first row is published (processed range-Doppler views). The second is
not: of eight independent noisy angles out of 256 oversampled ones the strongest has 2.7 times the mean power, which
is 19.5 dB below the sum."""


class ProjectionNormalization(nn.Module):
    """``(x - mean) / std`` for each of the two projections.

    Args:
        source: ``"train"``: statistics of the training frames; ``"carrada_tvt"``: CARRADA's.
    """

    statistics: Tensor

    def __init__(self, source: Preset = "train") -> None:
        super().__init__()
        self.source = source
        self._known = Seen()
        published = torch.tensor(_CARRADA, dtype=torch.float64)
        # NaN until the statistics are known, so that a model without them cannot pass for a good one.
        self.register_buffer("statistics", torch.full_like(published, torch.nan) if source == "train" else published)

    def observe(self, frames: Iterable[RadarFrame]) -> Iterator[RadarFrame]:
        """Pass ``frames`` on; after the last one the statistics are set, if they are to come from training frames.

        Statistics are over the newest cube of each frame.

        Raises:
            ValueError: if a frame has no cube, or if the projections are constant or not finite.
        """
        sums, count = torch.zeros(2, 2, dtype=torch.float64), 0
        for frame in frames:
            if self.source == "train":
                if frame.cubes is None:
                    raise ValueError(
                        f'frame {frame.frame_id} was read without its cube. Add "cubes" to the dataset\'s load= option.'
                    )
                values = range_doppler_projections(torch.from_numpy(frame.cubes[None, -1:])).double().view(2, -1)
                sums += torch.stack([values.sum(1), values.square().sum(1)], dim=1)
                count += values.shape[1]
            yield frame
        if self.source != "train":
            return
        mean, squares = (sums / max(count, 1)).unbind(1)
        std = (squares - mean.square()).clamp(min=0).sqrt()
        if not bool((torch.isfinite(mean) & (std > 0)).all()):
            raise ValueError(
                f"the projections of the {count} training cells have mean {mean.tolist()} and standard deviation "
                f"{std.tolist()} dB. Check that the dataset has frames, and that they are not constant or NaN."
            )
        self.statistics.copy_(torch.stack([mean, std], dim=1))

    def forward(self, projections: Tensor) -> Tensor:
        """Normalised ``(B, 2, T, R, D)`` projections.

        Raises:
            ValueError: if the statistics are not known yet.
        """
        checks = not torch.compiler.is_compiling() and self._known.is_new(self.statistics)
        if checks and not bool(torch.isfinite(self.statistics).all()):
            self._known = Seen()
            raise ValueError(
                'this model has no normalisation statistics yet: normalization="train" takes them from the training '
                'frames at the start of a run. Load trained weights, or choose normalization="carrada_tvt".'
            )
        mean, std = self.statistics.to(projections.dtype)[:, :, None, None, None].unbind(1)
        return (projections - mean) / std
