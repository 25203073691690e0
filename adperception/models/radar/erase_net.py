"""ERASE-Net: find the centres of objects in a radar cube, keep what lies around them, segment only that.

A detect-then-segment network in the sense of Fang et al., "ERASE-Net: Efficient Segmentation Networks for Automotive
Radar Signals", ICRA 2023 (arXiv 2209.12940). Only the paper's abstract could be had: order of the stages and aims are
the paper's, every layer and number is our reconstruction (docs/erase_net.md says which is which).

Shape legend: B frames, T moments, K candidates per frame, N windows, C classes, R x A x D cube cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adperception.losses.center_focal import center_focal
from adperception.losses.full_precision import full_precision
from adperception.models.base import Losses
from adperception.models.radar.base import CARRADA_CLASSES, RadarModel, RadarPrediction
from adperception.models.radar.center_detector import HEATMAP_STRIDE, CenterDetector, CenterMaps
from adperception.models.radar.center_peaks import Candidates, find_azimuths, find_peaks
from adperception.models.radar.erase_net_sizes import ERASE_NET_SIZES
from adperception.models.radar.merge_windows import ClassDecision, flip_range_doppler, foreground, merge_windows
from adperception.models.radar.normalization import CubeNormalization, Preset
from adperception.models.radar.patch_losses import patch_losses
from adperception.models.radar.patch_segmenter import Echoes, PatchScores, PatchSegmenter
from adperception.models.radar.projection_normalization import ProjectionNormalization
from adperception.models.radar.radar_center_targets import LabelledCenters, labelled_centers, radar_center_targets
from adperception.models.radar.range_doppler_projections import range_doppler_projections
from adperception.models.radar.training_windows import Jitter, draw_training_windows, object_masks, window_labels
from adperception.models.radar.window_class_weights import WindowClassWeights
from adperception.models.radar.window_gather import (
    PatchInput,
    WindowCells,
    Windows,
    WindowSize,
    gather_patches,
    strongest_azimuths,
)
from adperception.models.radar.window_objects import object_scores, objects_of_windows
from adperception.registry import MODELS
from adperception.structures import RadarBatch, RadarFrame, RadarMasks, RadarObjects

__all__ = ["ERASENet", "FixedCandidates"]


class FixedCandidates(NamedTuple):
    """Everything ERASE-Net says, in tensors whose shapes do not depend on the data.

    Attributes:
        range_doppler: ``(B, R, D)`` int64 classes, **row 0 near**.
        range_angle: ``(B, R, A)`` int64 classes, row 0 far.
        cells: ``(B, K, 3)`` range row (row 0 far), azimuth column, Doppler column of each candidate.
        scores: ``(B, K, C)`` scores of its classes, 0 for what is no object.
    """

    range_doppler: Tensor
    range_angle: Tensor
    cells: Tensor
    scores: Tensor


@MODELS.register_module()
class ERASENet(RadarModel):
    """Centre detection in range-Doppler, patches of the cube around the centres, segmentation of the patches.

    Args:
        classes: names of the classes, background not counted.
        moments: T, 5 or 1 in the fact sheet.
        cube_shape: ``(R, A, D)``.
        size: ``"small"``, ``"medium"`` or ``"large"``.
        input: content of the patches: ``"light"``, ``"channels"`` or ``"projection"``, see ``gather_patches``.
        constant_channels: give the patch networks range, Doppler, sine of the azimuth and the detector's scores.
        class_head: one decision per object on what it is.
        lift: show the range-angle network the range-Doppler mask at the azimuths of its echoes, see ``PatchSegmenter``.
        class_decision: how it enters the masks, see ``foreground``.
        normalization: ``"train"``: statistics of the training frames; ``"carrada_tvt"``: CARRADA's.
        window: changes to the window's size in cells (rows, dopplers, azimuth_gate, doppler_gate); what is not named
            follows from ``cube_shape``, see ``WindowSize``.
        candidates: K.
        score_threshold: candidates with a lower score of their best class are not looked at.
        true_centers: predict at the labelled centres instead of the detector's peaks: an upper bound, for studies.
        phases: shares of a run: the detector alone; the segmenter on windows around true centres; both on the
            detector's own windows. With no share for the last two the model only detects and needs no masks.
        pause_detector: whether the detector stands still in the second phase.
        clutter_share: windows per frame that show no object.
        class_weights: of the segmentation's cross-entropy: ``"windows"`` (inverse frequencies in windows of the
            training frames), ``"equal"``, or one number per class, background first, for both views.
        foreground_only: the patches learn which cells belong to the object, not of which class they are (that is up to
            the object class head, so it takes ``class_decision="object"``).
        balance_objects: weight the objects' classes by inverse frequency in the training frames.
        label_smoothing: of the object class head.
        offset_weight: of the centre's place inside its heat-map cell.
        cross_entropy_weight: of each view's weighted cross-entropy.
        dice_weight: of each view's soft Dice loss.
        coherence_weight: of the difference between the views' range profiles.
        object_weight: of the object class head.
    """

    FINE_TUNING: ClassVar[Mapping[str, Any]] = {"phases": (0.0, 0.0, 1.0)}  # what comes last in training, throughout

    COMPILED: ClassVar[tuple[str, ...]] = ("detector",)

    def __init__(
        self,
        classes: Sequence[str] = CARRADA_CLASSES,
        moments: int = 5,
        cube_shape: Sequence[int] = (256, 256, 64),
        size: str = "small",
        input: PatchInput = "light",
        constant_channels: bool = True,
        class_head: bool = True,
        lift: bool = False,
        class_decision: ClassDecision = "object",
        normalization: Preset = "train",
        window: Mapping[str, int] | None = None,
        candidates: int = 4,
        score_threshold: float = 0.3,
        true_centers: bool = False,
        phases: Sequence[float] = (0.3, 0.4, 0.3),
        pause_detector: bool = False,
        clutter_share: float = 0.25,
        class_weights: str | Sequence[float] = "windows",
        foreground_only: bool = False,
        balance_objects: bool = False,
        label_smoothing: float = 0.0,
        offset_weight: float = 1.0,
        cross_entropy_weight: float = 0.5,
        dice_weight: float = 5.0,
        coherence_weight: float = 5.0,
        object_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not classes or not all(isinstance(c, str) for c in classes) or len(set(classes)) < len(classes):
            raise ValueError(f"ERASENet: classes={list(classes)} must be one or more different names.")
        if moments < 1 or candidates < 1:
            raise ValueError(f"ERASENet: moments={moments} and candidates={candidates} must be at least 1.")
        if len(cube_shape) != 3 or min(cube_shape) < 8:
            raise ValueError(
                f"ERASENet: cube_shape={list(cube_shape)} must be three numbers of cells, at least 8 each."
            )
        _require("size", size, ERASE_NET_SIZES)
        _require("input", input, ("light", "channels", "projection"))
        _require("class_decision", class_decision, ("object", "product"))
        if len(phases) != 3 or min(phases) < 0 or abs(sum(phases) - 1) > 1e-6:
            raise ValueError(f"ERASENet: phases={list(phases)} must be three shares that add up to 1.")
        if foreground_only and not (class_head and class_decision == "object"):
            raise ValueError(
                "ERASENet: with foreground_only the patches do not know classes: it takes class_head=True and "
                'class_decision="object".'
            )
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"ERASENet: label_smoothing={label_smoothing} must lie in [0, 1).")
        self.class_names, self.moments = tuple(classes), moments
        self.foreground_only, self.label_smoothing = foreground_only, label_smoothing
        rows, azimuths, dopplers = (int(n) for n in cube_shape)
        self.cube_shape = (rows, azimuths, dopplers)
        self.input, self.constant_channels, self.class_decision = input, constant_channels, class_decision
        self.window = _window_size(self.cube_shape, window or {})
        self.jitter = Jitter.for_shape(self.cube_shape)
        self.beam = max(1, azimuths // 8)
        self.candidates, self.score_threshold = candidates, score_threshold
        self.true_centers = true_centers
        self.phases, self.pause_detector, self.clutter_share = tuple(phases), pause_detector, clutter_share
        self.loss_weights = {
            "offset": offset_weight,
            "cross_entropy": cross_entropy_weight,
            "dice": dice_weight,
            "coherence": coherence_weight,
            "object": object_weight,
        }

        class_count, widths = len(classes), ERASE_NET_SIZES[size]
        self.projection_normalization = ProjectionNormalization(normalization)
        self.detector = CenterDetector(2 * moments, class_count, widths.detector)
        self.segmenter: PatchSegmenter | None = None
        if phases[1] + phases[2] > 0:
            self.cube_normalization = CubeNormalization(normalization)
            self.class_weights = WindowClassWeights(class_count, class_weights, balance_objects)
            doppler_channels, angle_channels = {
                "light": (2, 2),
                "channels": (self.window.azimuth_gate, self.window.dopplers),
                "projection": (1, 1),
            }[input]
            constants = 3 + class_count if constant_channels else 0
            self.segmenter = PatchSegmenter(
                doppler_channels * moments + constants,
                angle_channels * moments + constants,
                class_count,
                widths.segmenter,
                class_head,
                lift,
            )
        self.progress: Tensor
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    # --- training ---

    def before_training(self, frames: Iterable[RadarFrame]) -> None:
        """Take normalisation and class weights from training frames."""
        frames = self.projection_normalization.observe(frames)
        if self.segmenter is not None:
            frames = self.class_weights.observe(frames, self.window, self.clutter_share)
            self.cube_normalization.fit(frames)
        for _ in frames:  # whoever takes statistics does so while the frames pass
            pass

    def after_optimizer_step(self, step: int, total_steps: int, applied: Tensor | None = None) -> None:
        """Note how much of the run is done, which decides about the phase."""
        done = (step + 1) / total_steps
        if applied is None:
            self.progress.fill_(done)
        else:
            self.progress.copy_(torch.where(applied, done, self.progress))

    @property
    def phase(self) -> int:
        """The phase that the next training step belongs to: 0, 1 or 2."""
        done = float(self.progress) + 1e-9
        if done < self.phases[0] or self.segmenter is None:
            return 0
        return 1 if done < self.phases[0] + self.phases[1] or self.phases[2] == 0 else 2

    def forward(self, batch: RadarBatch, generator: torch.Generator | None = None) -> Losses:
        """The losses of a labelled batch; ``generator`` moves windows and picks clutter."""
        cubes, phase = self._cubes(batch), self.phase
        centers = self._labelled(batch, cubes.device)
        maps = self.detect_maps(cubes)
        terms: dict[str, Tensor] = {}
        if phase == 1 and self.pause_detector:
            terms["loss_heatmap"] = _connected(maps.heatmap.sum(), maps.offset.sum())
        else:
            terms |= self._detector_losses(maps, centers, len(batch))
        if self.segmenter is not None:
            terms |= self._segmenter_losses(cubes, maps, centers, batch, phase, generator)
        return Losses.sum_of(terms)

    def _detector_losses(self, maps: CenterMaps, centers: LabelledCenters, batch_size: int) -> dict[str, Tensor]:
        targets = radar_center_targets(
            centers, batch_size, len(self.class_names), self.cube_shape[0], self.cube_shape[2]
        )
        with full_precision(targets.heatmaps):
            offsets = maps.offset[targets.frames, :, targets.rows, targets.columns]
            error = (offsets - targets.offsets).abs().sum() / max(1, len(offsets)) + _connected(maps.offset.sum())
            heatmap = center_focal(maps.heatmap, targets.heatmaps)
        return {"loss_heatmap": heatmap, "loss_offset": self.loss_weights["offset"] * error}

    def _segmenter_losses(
        self,
        cubes: Tensor,
        maps: CenterMaps,
        centers: LabelledCenters,
        batch: RadarBatch,
        phase: int,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        assert self.segmenter is not None
        untouched = _connected(*(p.sum() for p in self.segmenter.parameters()))
        if phase == 0:
            return {"loss_rd": untouched}
        if batch.range_doppler_mask is None or batch.range_angle_mask is None:
            raise ValueError(
                f"frame {batch.frame_ids[0]} has no masks, which ERASENet's segmenter is trained with. Use "
                "phases=[1, 0, 0] to train the detector alone."
            )
        with torch.no_grad():
            candidates = self.find_candidates(maps)
            chosen = draw_training_windows(
                cubes[:, -1],
                candidates,
                candidates.best > self.score_threshold,
                centers,
                self._scores_at(maps, centers),
                self.jitter,
                self.beam,
                self.clutter_share,
                phase == 2,
                generator,
            )
            if not len(chosen.windows):
                return {"loss_rd": untouched}
            cells = WindowCells.of(chosen.windows, self.window, self.cube_shape)
            masks = object_masks(flip_range_doppler(batch.range_doppler_mask), batch.range_angle_mask, centers)
            labels = window_labels(masks, chosen.owners, cells)
            classes = torch.cat([centers.classes, centers.classes.new_zeros(1)])[chosen.owners]
        scores = self.segment(cubes, chosen.windows)
        terms = patch_losses(
            scores,
            *labels,
            classes,
            self.class_weights(),
            self.class_weights.objects,
            self.loss_weights,
            foreground_only=self.foreground_only,
            label_smoothing=self.label_smoothing,
        )
        return terms | {"loss_rd": terms["loss_rd"] + untouched}

    def _scores_at(self, maps: CenterMaps, centers: LabelledCenters) -> Tensor:
        """``(M, C)``: the detector's highest scores in the 3 x 3 cells around the labelled centres."""
        scores = maps.heatmap.sigmoid()
        height, width = scores.shape[2:]
        step = torch.arange(-1, 2, device=scores.device)
        place = torch.stack([centers.cells[:, 0] / HEATMAP_STRIDE[0], centers.cells[:, 2] / HEATMAP_STRIDE[1]], dim=1)
        place = place.floor().long()
        row = (place[:, :1] + step).clamp(0, height - 1)
        column = (place[:, 1:] + step) % width
        return scores[centers.frames[:, None, None], :, row[:, :, None], column[:, None, :]].amax(dim=(1, 2))

    # --- prediction ---

    @torch.no_grad()
    def predict(self, batch: RadarBatch) -> list[RadarPrediction]:
        """Masks of both views, and the objects, for each frame; without a segmenter only the objects."""
        cubes = self._cubes(batch)
        windows, places = self._find(cubes, batch)
        if self.segmenter is None:
            return [RadarPrediction(objects=o) for o in objects_of_windows(windows, places, windows.scores, len(batch))]
        if not len(windows):
            rows, azimuths, dopplers = self.cube_shape
            doppler = torch.zeros(len(batch), rows, dopplers)
            angle = torch.zeros(len(batch), rows, azimuths)
            scores = windows.scores
        else:
            found = self.segment(cubes, windows)
            cells = WindowCells.of(windows, self.window, self.cube_shape)
            probabilities = foreground(found, self.class_decision)
            doppler, angle = merge_windows(*probabilities, cells, len(batch), self.cube_shape)
            scores = object_scores(windows.scores, found)
        objects = objects_of_windows(windows, places, scores, len(batch))
        both = zip(_bytes(doppler), _bytes(angle), objects, strict=True)
        return [RadarPrediction(RadarMasks(rd, ra), found) for rd, ra, found in both]

    @torch.no_grad()
    def detect(self, batch: RadarBatch) -> list[RadarObjects]:
        """Stage A alone: the objects of each frame with the detector's classes and scores, best first.

        ``RadarObjects.range_m``, ``azimuth_deg`` and ``velocity_mps`` turn cells into metres, degrees and m/s.
        """
        cubes = self._cubes(batch)
        windows, places = self._find(cubes, batch)
        return objects_of_windows(windows, places, windows.scores, len(batch))

    def fixed_candidates(self, cubes: Tensor) -> FixedCandidates:
        """``predict`` in tensors of fixed shapes, for exports: K windows per frame, the weak ones without effect.

        Args:
            cubes: ``(B, T, R, A, D)`` magnitudes.

        Raises:
            ValueError: for a model that only detects.
        """
        if self.segmenter is None:
            raise ValueError("this ERASENet only detects (phases=[1, 0, 0]); it has no masks to give.")
        batch_size = cubes.shape[0]
        candidates = self.find_candidates(self.detect_maps(cubes))
        every = candidates.best >= 0
        kept = (candidates.best > self.score_threshold).flatten()
        frames = torch.arange(batch_size, device=cubes.device)[:, None].expand_as(every).flatten()
        windows = self._windows(cubes, frames, candidates.places.flatten(0, 1), candidates.scores.flatten(0, 1))
        found = self.segment(cubes, windows)
        cells = WindowCells.of(windows, self.window, self.cube_shape)
        doppler, angle = (p * kept[:, None, None, None] for p in foreground(found, self.class_decision))
        masks = merge_windows(doppler, angle, cells, batch_size, self.cube_shape)
        scores = object_scores(windows.scores, found) * kept[:, None]
        places = candidates.places
        places = torch.stack(  # the azimuth as a float: ONNX stacks no mixture
            [places[..., 0], windows.azimuths.view(every.shape).to(places.dtype), places[..., 1]], dim=-1
        )
        return FixedCandidates(*masks, places, scores.view(*every.shape, -1))

    # --- the stages ---

    def detect_maps(self, cubes: Tensor) -> CenterMaps:
        """Stage A: the detector's maps of cubes ``(B, T, R, A, D)``."""
        projections = self.projection_normalization(range_doppler_projections(cubes))
        return self.detector(projections.flatten(1, 2))  # type: ignore[no-any-return]

    def find_candidates(self, maps: CenterMaps) -> Candidates:
        """The K best peaks of the heat map."""
        return find_peaks(maps, self.candidates, self.cube_shape[2])

    def _find(self, cubes: Tensor, batch: RadarBatch) -> tuple[Windows, Tensor]:
        """Windows at the peaks, frame by frame, best first, and ``(N, 2)`` their range rows and Doppler columns."""
        maps = self._finite_maps(cubes, batch)
        if self.true_centers:
            centers = self._labelled(batch, cubes.device)
            frames, places, scores = centers.frames, centers.cells[:, [0, 2]], self._scores_at(maps, centers)
        else:
            candidates = self.find_candidates(maps)
            kept = candidates.best > self.score_threshold
            frames, places, scores = kept.nonzero()[:, 0], candidates.places[kept], candidates.scores[kept]
        return self._windows(cubes, frames, places, scores), places

    def _windows(self, cubes: Tensor, frames: Tensor, places: Tensor, scores: Tensor) -> Windows:
        row = places[:, 0].round().long().clamp(0, self.cube_shape[0] - 1)
        doppler = places[:, 1].round().long() % self.cube_shape[2]
        return Windows(frames, row, find_azimuths(cubes[:, -1], frames, row, doppler, self.beam), doppler, scores)

    def segment(self, cubes: Tensor, windows: Windows) -> PatchScores:
        """Stages B and C: patches of ``cubes`` ``(B, T, R, A, D)`` and what the segmenter says about them."""
        assert self.segmenter is not None
        with torch.no_grad():
            doppler, angle, inside = gather_patches(cubes, windows, self.window, self.input)
            constants = self._constants(windows)
            echoes = self._echoes(cubes[:, -1], windows, inside) if self.segmenter.lift else None
            patches = []
            for power in (doppler, angle):
                values = self._normalized(power) * inside[:, None]
                if self.constant_channels:
                    expanded = constants[:, :, None, None].expand(-1, -1, *values.shape[2:])
                    values = torch.cat([values, expanded], dim=1)
                patches.append(values)
        return self.segmenter(*patches, echoes)  # type: ignore[no-any-return]

    def _normalized(self, power: Tensor) -> Tensor:
        return self.cube_normalization(10 * torch.log10(power + 1))  # type: ignore[no-any-return]

    def _echoes(self, newest: Tensor, windows: Windows, inside: Tensor) -> Echoes:
        azimuths, power = strongest_azimuths(newest, windows, self.window)
        return Echoes(azimuths, self._normalized(power) * inside)

    def _constants(self, windows: Windows) -> Tensor:
        """``(N, 3 + C)``: range (0 to 1), Doppler and sine of the azimuth (-1 to 1), scores."""
        rows, azimuths, dopplers = self.cube_shape
        place = torch.stack(
            [windows.rows / rows, windows.dopplers * 2 / dopplers - 1, windows.azimuths * 2 / azimuths - 1], dim=1
        )
        return torch.cat([place, windows.scores], dim=1)

    # --- input ---

    def _cubes(self, batch: RadarBatch) -> Tensor:
        name = batch.frame_ids[0]
        if batch.cubes is None:
            raise ValueError(
                f'frame {name} has no cube, which ERASENet needs. Add "cubes" to the dataset\'s load= option.'
            )
        if batch.cubes.shape[1] < self.moments:
            raise ValueError(
                f"frame {name}: {batch.cubes.shape[1]} moments, ERASENet looks at {self.moments}. Set the dataset's "
                f"moments={self.moments}."
            )
        if tuple(batch.cubes.shape[2:]) != self.cube_shape:
            raise ValueError(
                f"frame {name}: cubes of {tuple(batch.cubes.shape[2:])} cells, this ERASENet was made for "
                f"{self.cube_shape} (range, azimuth, Doppler). Set its cube_shape."
            )
        return batch.cubes[:, batch.cubes.shape[1] - self.moments :]

    def _finite_maps(self, cubes: Tensor, batch: RadarBatch) -> CenterMaps:
        maps = self.detect_maps(cubes)
        finite = torch.isfinite(maps.heatmap.sum(dim=(1, 2, 3))).tolist()
        if not all(finite):
            raise ValueError(
                f"frame {batch.frame_ids[finite.index(False)]}: its cubes hold values that are not finite (or so large "
                "that their squares are not). Check the recording."
            )
        return maps

    def _labelled(self, batch: RadarBatch, device: torch.device) -> LabelledCenters:
        if batch.objects is None:
            raise ValueError(f"frame {batch.frame_ids[0]} has no labelled objects, which ERASENet is trained with.")
        found = sorted({int(number) for objects in batch.objects for number in objects.class_ids})
        if found and not 1 <= found[0] <= found[-1] <= len(self.class_names):
            raise ValueError(
                f"batch of frame {batch.frame_ids[0]}: class ids {found}, this ERASENet knows 1 to "
                f"{len(self.class_names)}: {', '.join(self.class_names)}."
            )
        return labelled_centers(batch.objects, device)


def _bytes(labels: Tensor) -> list[np.ndarray]:
    return list(labels.to(torch.uint8).cpu().numpy())


def _connected(*values: Tensor) -> Tensor:
    """Zero, with a path to what it is made of: every parameter gets a gradient in every step, as DDP asks."""
    return torch.stack(values).sum() * 0.0


def _window_size(shape: tuple[int, int, int], changes: Mapping[str, int]) -> WindowSize:
    default = WindowSize.for_shape(shape)
    unknown = sorted(set(changes) - set(asdict(default)))
    if unknown:
        raise ValueError(f"ERASENet: window has no {unknown}. Available: {', '.join(asdict(default))}.")
    size = replace(default, **changes)
    size.check(shape)
    return size


def _require(name: str, value: Any, known: Iterable[str]) -> None:
    if value not in known:
        raise ValueError(f'ERASENet: {name}="{value}" is unknown. Available: {", ".join(known)}.')
