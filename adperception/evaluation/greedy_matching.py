"""Labels choose their detections one after the other, over many frames and score thresholds at once.

KITTI's evaluation and those that descend from it (ONCE's) match in two passes: the first finds the scores of the true
positives, from which thresholds are drawn; the second matches again at each threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adperception.evaluation.overlapping_pairs import Floats, Integers, Mask

__all__ = ["COUNTED", "IGNORED", "LEFT_OUT", "LabelsChoose", "greedy_matches"]

# Roles of labels and detections in the evaluation of one class and difficulty.
COUNTED, IGNORED, LEFT_OUT = 0, 1, 2


@dataclass(frozen=True)
class LabelsChoose:
    """Labels and the detections that they may choose.

    Attributes:
        frames: ``(P,)`` frame number of each pair of a label and a detection that overlap enough.
        labels: ``(P,)`` which label; frames have ascending labels.
        detections: ``(P,)`` which detection.
        overlap: ``(P,)``.
        label_roles: ``(L,)`` whether a label is counted, ignored or left out.
        roles: ``(D,)`` the same for detections.
        scores: ``(D,)``.
    """

    frames: Integers
    labels: Integers
    detections: Integers
    overlap: Floats
    label_roles: Integers
    roles: Integers
    scores: Floats

    @classmethod
    def of(
        cls,
        frames: Integers,
        pairs: tuple[Integers, Integers, Floats],
        minimum: float,
        label_roles: Integers,
        roles: Integers,
        scores: Floats,
    ) -> LabelsChoose:
        """Of all pairs (label, detection, overlap) those above the minimum overlap, neither of which is left out.

        Args:
            frames: ``(L,)`` frame number of each label.
            pairs: of any overlap.
            minimum: an overlap must be above it.
            label_roles: see the attributes.
            roles: see the attributes.
            scores: see the attributes.
        """
        i, j, overlap = pairs
        useful = (overlap > minimum) & (label_roles[i] != LEFT_OUT) & (roles[j] != LEFT_OUT)
        i, j, overlap = i[useful], j[useful], overlap[useful]
        return cls(frames[i], i, j, overlap, label_roles, roles, scores)

    @property
    def hits(self) -> Mask:
        """``(P,)`` whether both are counted: such a pair is a true positive if it is taken."""
        return np.asarray((self.label_roles[self.labels] == COUNTED) & (self.roles[self.detections] == COUNTED))

    def true_positive_scores(self) -> Floats:
        """Scores of the true positives when each label takes the free detection with the highest score."""
        order = np.lexsort((self.detections, -self.scores[self.detections], self.labels))
        taken = self._taken(order, np.ones((len(order), 1), dtype=np.bool_))
        return np.asarray(self.scores[self.detections[taken[:, 0] & self.hits]])

    def taken_at(self, thresholds: Floats) -> Mask:
        """``(P, K)`` the pairs taken among detections that reach each of K thresholds.

        A label takes the free counted detection with the largest overlap, or else the first ignored one.
        """
        ignored = self.roles[self.detections] == IGNORED
        preference = np.where(ignored, 0.0, -self.overlap)
        order = np.lexsort((self.detections, preference, ignored, self.labels))
        return self._taken(order, self.scores[self.detections][:, None] >= thresholds)

    def false_positives(self, taken: Mask, thresholds: Floats, excused: Mask | None = None) -> Integers:
        """``(K,)`` number of counted detections that reach each threshold and that no label took.

        Args:
            taken: ``(P, K)`` of ``taken_at``.
            thresholds: ``(K,)``.
            excused: ``(D,)`` detections that are never false.
        """
        blamed = self.roles == COUNTED
        if excused is not None:
            blamed &= ~excused
        ascending = np.sort(self.scores[blamed])
        above = len(ascending) - np.searchsorted(ascending, thresholds, "left")
        return np.asarray(above - taken[blamed[self.detections]].sum(axis=0))

    def _taken(self, order: Integers, candidate: Mask) -> Mask:
        taken = np.zeros_like(candidate)
        taken[order] = greedy_matches(self.frames[order], self.labels[order], self.detections[order], candidate[order])
        return taken


def greedy_matches(frames: Integers, labels: Integers, detections: Integers, candidate: Mask) -> Mask:
    """Which pairs a greedy matching takes, for K cases (score thresholds) at once.

    In each frame and case the pairs are gone through in the given order, and a pair is taken if it is a candidate and
    neither its label nor its detection has been taken before. Frames do not influence each other, so the n-th pairs of
    all frames are handled together.

    Args:
        frames: ``(P,)`` frame number of each pair, ascending; within a frame in the order of preference.
        labels: ``(P,)`` which label.
        detections: ``(P,)`` which detection.
        candidate: ``(P, K)`` whether the pair may be taken.

    Returns:
        ``(P, K)`` taken.
    """
    taken = np.zeros_like(candidate)
    if not len(frames):
        return taken
    first_of_frame = np.searchsorted(frames, frames, "left")
    position = np.arange(len(frames)) - first_of_frame
    by_position = np.argsort(position, kind="stable")
    ends = np.cumsum(np.bincount(position))
    _, label = np.unique(labels, return_inverse=True)
    _, detection = np.unique(detections, return_inverse=True)
    label_free = np.ones((label.max() + 1, candidate.shape[1]), dtype=np.bool_)
    detection_free = np.ones((detection.max() + 1, candidate.shape[1]), dtype=np.bool_)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        pairs = by_position[start:end]
        take = candidate[pairs] & label_free[label[pairs]] & detection_free[detection[pairs]]
        label_free[label[pairs]] &= ~take
        detection_free[detection[pairs]] &= ~take
        taken[pairs] = take
    return taken
