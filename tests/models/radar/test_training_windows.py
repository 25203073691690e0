from __future__ import annotations

import numpy as np
import torch

from adperception.models.radar.center_peaks import Candidates
from adperception.models.radar.merge_windows import flip_range_doppler
from adperception.models.radar.radar_center_targets import LabelledCenters, labelled_centers
from adperception.models.radar.training_windows import (
    Jitter,
    TrainingWindows,
    draw_training_windows,
    object_masks,
    window_labels,
)
from adperception.models.radar.window_gather import WindowCells, WindowSize
from adperception.structures import RadarBatch, RadarObjects
from tests.models.radar.cube_frames import GRID, cube_frame

CPU = torch.device("cpu")
JITTER = Jitter(rows=1, azimuths=2, dopplers=1)


def draw(
    candidates: Candidates,
    batch: RadarBatch,
    clutter_share: float = 0.0,
    use_candidates: bool = True,
    seed: int = 0,
) -> TrainingWindows:
    assert batch.cubes is not None
    assert batch.objects is not None
    centers = labelled_centers(batch.objects, CPU)
    scores = torch.full((len(centers.frames), 3), 0.05)
    generator = torch.Generator().manual_seed(seed)
    return draw_training_windows(
        batch.cubes[:, -1],
        candidates,
        candidates.best > 0.3,
        centers,
        scores,
        JITTER,
        4,
        clutter_share,
        use_candidates,
        generator,
    )


def candidates(*frames: list[tuple[float, float, float]]) -> Candidates:
    """Two candidates per frame: row, Doppler, score of class 1."""
    filled = [frame + [(0.0, 0.0, 0.0)] * (2 - len(frame)) for frame in frames]
    values = torch.tensor(filled)
    scores = torch.zeros(len(frames), 2, 3)
    scores[..., 0] = values[..., 2]
    return Candidates(values[..., :2], scores)


BATCH = RadarBatch.from_frames([cube_frame([(10, 8, 4, 1), (22, 20, 15, 3)], 0), cube_frame([], 1)])


def test_true_centres_are_moved_by_the_jitter_at_most() -> None:
    rows, dopplers, azimuths = set(), set(), set()
    for seed in range(60):
        drawn = draw(candidates([(20.0, 5.0, 0.9)], []), BATCH, use_candidates=False, seed=seed)
        assert drawn.owners.tolist() == [0, 1]
        assert drawn.windows.frames.tolist() == [0, 0]
        rows.add(int(drawn.windows.rows[0]) - 10)
        dopplers.add(int(drawn.windows.dopplers[1]))
        azimuths.add(int(drawn.windows.azimuths[0]) - 8)
    assert rows == {-1, 0, 1}
    assert dopplers == {14, 15, 0}
    assert len(azimuths) >= 4
    assert max(abs(a) for a in azimuths) <= 4


def test_found_objects_take_the_detectors_window_and_missed_ones_their_true_centre() -> None:
    drawn = draw(candidates([(21.6, 0.2, 0.9), (4.0, 9.0, 0.5)], [(7.0, 3.0, 0.8), (8.0, 12.0, 0.1)]), BATCH)
    places = list(
        zip(*(x.tolist() for x in (drawn.windows.frames, drawn.windows.rows, drawn.windows.dopplers)), strict=True)
    )
    assert places[:3] == [(0, 22, 0), (0, 4, 9), (1, 7, 3)]
    assert drawn.owners.tolist() == [1, -1, -1, 0]
    assert drawn.windows.scores[:, 0].tolist()[3] == torch.tensor(0.05).item()


def test_clutter_is_the_best_candidate_that_is_no_object() -> None:
    given = candidates([(22.0, 15.0, 0.9), (4.0, 9.0, 0.2)], [(7.0, 3.0, 0.1), (8.0, 12.0, 0.05)])
    drawn = draw(given, BATCH, clutter_share=1.0, use_candidates=False)
    assert drawn.owners.tolist() == [-1, -1, 0, 1]
    assert drawn.windows.rows.tolist()[:2] == [4, 7]
    shares = [len(draw(given, BATCH, 0.25, False, seed).windows) - 2 for seed in range(200)]
    assert 0.4 < np.mean(shares) < 0.6  # two frames


def test_nothing_to_see() -> None:
    empty = RadarBatch.from_frames([cube_frame([], 0), cube_frame([], 1)])
    assert len(draw(candidates([], []), empty, clutter_share=1.0).windows) == 0


def test_windows_show_their_own_object() -> None:
    """Two cars side by side share no cell; the pedestrian in the car's window is background there."""
    frame = cube_frame([(10, 8, 4, 3), (10, 8, 8, 3), (14, 20, 5, 1)])
    batch = RadarBatch.from_frames([frame])
    assert batch.range_doppler_mask is not None
    assert batch.range_angle_mask is not None
    centers = labelled_centers([frame.objects] if frame.objects else [], CPU)
    masks = object_masks(flip_range_doppler(batch.range_doppler_mask), batch.range_angle_mask, centers)
    assert masks.range_doppler.shape == (4, *GRID.shape[::2])
    first, second, third, clutter = masks.range_doppler
    assert sorted(set(first.nonzero()[:, 1].tolist())) == [3, 4, 5]
    assert sorted(set(second.nonzero()[:, 1].tolist())) == [7, 8, 9]
    assert set(first.unique().tolist()) == {0, 3}
    assert set(third.unique().tolist()) == {0, 1}
    assert not bool(clutter.any())

    size = WindowSize(8, 6, 4, 1)
    given = candidates([(10.0, 4.0, 0.9), (25.0, 9.0, 0.9)])
    drawn = draw(given, batch)
    doppler, angle = window_labels(masks, drawn.owners, WindowCells.of(drawn.windows, size, GRID.shape))
    assert drawn.owners.tolist()[:2] == [0, -1]
    assert doppler[0, 3:6, 2:5].eq(3).all()
    assert int((doppler[0] > 0).sum()) == 9
    assert int((angle[0] > 0).sum()) == 15
    assert not bool(doppler[1].any() or angle[1].any())


def test_cells_go_to_the_nearest_object_of_their_class_across_the_doppler_seam() -> None:
    objects = RadarObjects(
        np.array([[8, 4, 0], [8, 12, 9]], dtype=np.float32),
        np.full((2, 3), 2, np.float32),
        np.array([1, 1]),
        np.ones(2, np.float32),
    )
    centers: LabelledCenters = labelled_centers([objects], CPU)
    mask = torch.zeros(1, 32, 16, dtype=torch.int64)
    mask[0, 8, [14, 15, 0, 1, 8, 9]] = 1
    first, second, _ = object_masks(mask, torch.zeros(1, 32, 32, dtype=torch.int64), centers).range_doppler
    assert first[8].nonzero()[:, 0].tolist() == [0, 1, 14, 15]
    assert second[8].nonzero()[:, 0].tolist() == [8, 9]
