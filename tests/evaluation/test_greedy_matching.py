"""Against the same rules written as plain loops over one frame and one threshold."""

from __future__ import annotations

import numpy as np
import pytest

from adperception.evaluation.greedy_matching import COUNTED, IGNORED, LEFT_OUT, LabelsChoose, greedy_matches

MINIMUM = 0.5


def scene(seed: int, frames: int = 12, labels: int = 6, detections: int = 8):
    """Random overlaps of random roles; scores and overlaps have few values, so that ties are common."""
    rng = np.random.default_rng(seed)
    i, j = np.meshgrid(np.arange(labels), np.arange(detections), indexing="ij")
    offsets = np.arange(frames)[:, None]
    i, j = (i.ravel() + labels * offsets).ravel(), (j.ravel() + detections * offsets).ravel()
    overlap = rng.choice([0.0, 0.3, 0.5, 0.6, 0.7, 0.8], size=len(i), p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    label_roles, roles = (rng.choice([COUNTED, IGNORED, LEFT_OUT], size=frames * n) for n in (labels, detections))
    scores = rng.integers(1, 6, size=frames * detections) / 5
    frame_of_label = np.repeat(np.arange(frames), labels)
    choose = LabelsChoose.of(frame_of_label, (i, j, overlap), MINIMUM, label_roles, roles, scores)
    matrix = overlap.reshape(frames, labels, detections)
    return choose, matrix, label_roles.reshape(frames, labels), roles.reshape(frames, detections), scores


def by_loops(overlap, label_roles, roles, scores, threshold=None):
    """True positives as (label, detection), and false positives, of one frame. No threshold: by score."""
    free = [role != LEFT_OUT and (threshold is None or s >= threshold) for role, s in zip(roles, scores, strict=True)]
    used, true = set(), []
    for label, label_role in enumerate(label_roles):
        if label_role == LEFT_OUT:
            continue
        able = [d for d in range(len(roles)) if free[d] and d not in used and overlap[label, d] > MINIMUM]
        if not able:
            continue
        if threshold is None:
            best = max(able, key=lambda d: (scores[d], -d))
        else:
            counted = [d for d in able if roles[d] == COUNTED]
            best = max(counted, key=lambda d: (overlap[label, d], -d)) if counted else able[0]
        used.add(best)
        if label_role == COUNTED and roles[best] == COUNTED:
            true.append((label, best))
    false = [d for d in range(len(roles)) if free[d] and roles[d] == COUNTED and d not in used]
    return true, false


@pytest.mark.parametrize("seed", range(20))
def test_both_passes_equal_the_loops(seed: int) -> None:
    choose, overlap, label_roles, roles, scores = scene(seed)
    per_frame = scores.reshape(roles.shape)
    frames = [(overlap[f], label_roles[f], roles[f], per_frame[f]) for f in range(len(overlap))]

    expected = [per_frame[f, d] for f, frame in enumerate(frames) for _, d in by_loops(*frame)[0]]
    np.testing.assert_array_equal(np.sort(choose.true_positive_scores()), np.sort(expected))

    thresholds = np.array([1.0, 0.8, 0.5, 0.2])
    excused = np.random.default_rng(seed).uniform(size=len(scores)) < 0.3
    taken = choose.taken_at(thresholds)
    false = choose.false_positives(taken, thresholds, excused)
    for k, threshold in enumerate(thresholds):
        found = [by_loops(*frame, threshold) for frame in frames]
        true = {(f * 6 + i, f * 8 + j) for f, (pairs, _) in enumerate(found) for i, j in pairs}
        chosen = taken[:, k] & choose.hits
        assert set(zip(choose.labels[chosen], choose.detections[chosen], strict=True)) == true
        # Excused ones are false in the loops only if nobody took them.
        assert false[k] == sum(not excused[f * 8 + d] for f, (_, unused) in enumerate(found) for d in unused)


def test_frames_of_very_different_sizes() -> None:
    frames = np.array([0, 1, 1, 1, 1, 3])
    labels = np.array([0, 1, 1, 2, 2, 9])
    detections = np.array([0, 1, 2, 1, 2, 5])
    candidate = np.array([[True], [False], [True], [True], [True], [True]])
    taken = greedy_matches(frames, labels, detections, candidate)[:, 0]
    np.testing.assert_array_equal(taken, [True, False, True, True, False, True])


def test_nothing_to_match() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert greedy_matches(none, none, none, np.zeros((0, 4), dtype=bool)).shape == (0, 4)
