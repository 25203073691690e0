"""What segmentation networks on processed views share: input, losses, predictions. The MVRSS protocol."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adperception.losses.full_precision import full_precision, in_full_precision
from adperception.losses.soft_dice import soft_dice
from adperception.losses.view_coherence import view_coherence
from adperception.losses.weighted_cross_entropy import (
    CARRADA_CLASS_WEIGHTS,
    inverse_frequency_weights,
    weighted_cross_entropy,
)
from adperception.models.base import Losses
from adperception.models.radar.base import CARRADA_CLASSES, RadarModel, RadarPrediction
from adperception.models.radar.normalization import Preset, ViewNormalization
from adperception.models.radar.seen import Seen
from adperception.structures import RadarBatch, RadarFrame, RadarMasks

__all__ = ["ClassWeights", "ViewLogits", "ViewSegmentation"]

ClassWeights = str | Sequence[Sequence[float]]
"""Where class weights come from: ``"train"`` (the training frames), ``"carrada"`` (published), or given per view."""

_MASKED_VIEWS = ("range_doppler", "range_angle")


class ViewLogits(NamedTuple):
    """Scores of every class, background first.

    Attributes:
        range_doppler: ``(B, classes, range, Doppler)``, row 0 near.
        range_angle: ``(B, classes, range, azimuth)``, row 0 far.
    """

    range_doppler: Tensor
    range_angle: Tensor


class ViewSegmentation(RadarModel):
    """A network from processed views of T frames to a class for every pixel of two views.

    Per view the loss is the mean of the weighted cross-entropy and of ``dice_weight`` times the soft Dice loss; the
    coherence of the views comes on top.

    Args:
        moments: T.
        classes: foreground classes, in the order of the labels.
        normalization: ``"train"`` or ``"carrada_tvt"``, see ``ViewNormalization``.
        class_weights: ``"train"``: by inverse frequency in the training frames, ``"carrada"``: the published ones, or
            two lists (range-Doppler, range-angle) with a weight per class, background first.
        dice_weight: factor of the soft Dice loss.
        coherence_weight: factor of the coherence loss; 0 leaves it out.

    Attributes:
        class_weights: ``(2, classes + 1)`` float64, range-Doppler and range-angle; NaN until they are known.

    Raises:
        ValueError: for weights that do not fit the classes.
    """

    class_weights: Tensor

    def __init__(
        self,
        moments: int,
        classes: Sequence[str] = CARRADA_CLASSES,
        normalization: Preset = "train",
        class_weights: ClassWeights = "train",
        dice_weight: float = 10.0,
        coherence_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if moments < 1:
            raise ValueError(f"{type(self).__name__}: moments={moments} must be at least 1.")
        if dice_weight < 0 or coherence_weight < 0:
            raise ValueError(
                f"{type(self).__name__}: dice_weight={dice_weight} and coherence_weight={coherence_weight} must not be "
                "negative."
            )
        self.moments = moments
        self.class_names = tuple(classes)
        self.dice_weight = dice_weight
        self.coherence_weight = coherence_weight
        self.normalization = ViewNormalization(normalization)
        self._known = Seen()
        self._weights_from_frames = class_weights == "train"
        self.register_buffer("class_weights", self._initial_weights(class_weights))

    @property
    def outputs(self) -> int:
        """Number of classes with the background."""
        return len(self.class_names) + 1

    @abstractmethod
    def logits(self, range_doppler: Tensor, range_angle: Tensor, angle_doppler: Tensor) -> ViewLogits:
        """Scores from normalised views.

        Args:
            range_doppler: ``(B, T, range, Doppler)``, row 0 near.
            range_angle: ``(B, T, range, azimuth)``, row 0 far.
            angle_doppler: ``(B, T, azimuth, Doppler)``.
        """

    def forward(self, batch: RadarBatch, generator: torch.Generator | None = None) -> Losses:
        """The losses of one labelled batch; nothing is drawn."""
        if batch.range_doppler_mask is None or batch.range_angle_mask is None:
            raise ValueError(f"frame {batch.frame_ids[0]} has no masks, which {type(self).__name__} trains on.")
        highest = int(torch.maximum(batch.range_doppler_mask.max(), batch.range_angle_mask.max()))
        if highest >= self.outputs:
            raise ValueError(
                f"frame {batch.frame_ids[0]} or one of its batch is labelled with class {highest}, but "
                f"{type(self).__name__} knows {len(self.class_names)}: {', '.join(self.class_names)}. Set classes= to "
                "the dataset's."
            )
        return self.losses(self._score(batch), batch.range_doppler_mask, batch.range_angle_mask)

    def losses(self, logits: ViewLogits, range_doppler_mask: Tensor, range_angle_mask: Tensor) -> Losses:
        """The losses of given scores, in float32.

        Args:
            logits: scores of both views.
            range_doppler_mask: ``(B, range, Doppler)`` int64 classes, row 0 near.
            range_angle_mask: ``(B, range, azimuth)`` int64 classes, row 0 far.

        Raises:
            ValueError: if the class weights are not known yet.
        """
        if self._known.is_new(self.class_weights) and bool(self.class_weights.isnan().any()):
            self._known = Seen()
            raise ValueError(
                f'{type(self).__name__} has no class weights yet: class_weights="train" counts the pixels of the '
                'training frames at the start of a run. Load trained weights, or choose class_weights="carrada".'
            )
        terms: dict[str, Tensor] = {}
        with full_precision(range_doppler_mask):
            logits = ViewLogits(*(in_full_precision(scores) for scores in logits))
            for view, scores, mask, weights in zip(
                _MASKED_VIEWS, logits, (range_doppler_mask, range_angle_mask), self.class_weights, strict=True
            ):
                terms[f"loss_{view}_cross_entropy"] = weighted_cross_entropy(scores, mask, weights) / 2
                terms[f"loss_{view}_dice"] = self.dice_weight * soft_dice(scores, mask) / 2
            if self.coherence_weight > 0:
                terms["loss_coherence"] = self.coherence_weight * view_coherence(*logits)
            return Losses.sum_of(terms)

    @torch.no_grad()
    def predict(self, batch: RadarBatch) -> list[RadarPrediction]:
        """The best class of every pixel of both views, frame by frame. To be called in evaluation mode."""
        doppler, angle = (s.argmax(dim=1).to(torch.uint8).cpu().numpy() for s in self._score(batch))
        return [RadarPrediction(RadarMasks(*masks)) for masks in zip(doppler, angle, strict=True)]

    def before_training(self, frames: Iterable[RadarFrame]) -> None:
        """Take the statistics that are to come from the training frames: normalisation and class weights."""
        counts = np.zeros((2, self.outputs))
        counted = self._count(frames, counts) if self._weights_from_frames else iter(frames)
        self.normalization.fit(counted)
        if self._weights_from_frames:
            for _ in counted:  # what the normalisation had no use for
                pass
            weights = [inverse_frequency_weights(view.tolist()) for view in counts]
            self.class_weights.copy_(torch.tensor(weights, dtype=torch.float64))

    def _score(self, batch: RadarBatch) -> ViewLogits:
        if batch.grid.range_bins % 4 or batch.grid.azimuth_bins % 4:
            raise ValueError(
                f"{type(self).__name__} halves rows and columns twice, so {batch.grid.range_bins} range bins and "
                f"{batch.grid.azimuth_bins} azimuth columns must both be multiples of 4. Crop or pad the cubes."
            )
        views = []
        for name in ("range_doppler", "range_angle", "angle_doppler"):
            view: Tensor | None = getattr(batch, name)
            if view is None:
                raise ValueError(
                    f"frame {batch.frame_ids[0]} was read without its views, which {type(self).__name__} works on. Add "
                    '"views" to the dataset\'s load= option.'
                )
            if view.shape[1] < self.moments:
                raise ValueError(
                    f"frame {batch.frame_ids[0]} comes with {view.shape[1]} moments, {type(self).__name__} looks at "
                    f"{self.moments}. Set the dataset's moments={self.moments}."
                )
            views.append(self.normalization(view[:, -self.moments :], name))
        return ViewLogits(*(in_full_precision(scores) for scores in self.logits(*views)))

    def _count(self, frames: Iterable[RadarFrame], counts: np.ndarray) -> Iterator[RadarFrame]:
        """Pass frames on and count the pixels of every class in those that show an object."""
        for frame in frames:
            if frame.masks is None:
                raise ValueError(f"frame {frame.frame_id} has no masks to count the pixels of each class in.")
            masks = (frame.masks.range_doppler, frame.masks.range_angle)
            if any(mask.any() for mask in masks):
                for total, mask in zip(counts, masks, strict=True):
                    total += np.bincount(mask.reshape(-1), minlength=self.outputs)[: self.outputs]
            yield frame

    def _initial_weights(self, source: ClassWeights) -> Tensor:
        if source == "train":
            return torch.full((2, self.outputs), torch.nan, dtype=torch.float64)
        values: Sequence[Sequence[float]]
        if source == "carrada":
            values = [CARRADA_CLASS_WEIGHTS[view] for view in _MASKED_VIEWS]
        elif isinstance(source, str):
            raise ValueError(f'class_weights="{source}" must be "train", "carrada" or two lists of numbers.')
        else:
            values = source
        if [len(view) for view in values] != [self.outputs] * 2 or min(min(view) for view in values) < 0:
            raise ValueError(
                f"class_weights={[list(view) for view in values]} must be two lists (range-Doppler, range-angle) of "
                f"{self.outputs} non-negative weights: background, {', '.join(self.class_names)}."
            )
        return torch.tensor([list(view) for view in values], dtype=torch.float64)
