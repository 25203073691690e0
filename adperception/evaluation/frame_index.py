"""Where a dataset has the frame of a prediction."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["FrameIndex"]


class FrameIndex:
    """Positions of frames in a dataset by name.

    Args:
        evaluation: who asks, for messages.
        frame_ids: the dataset's frame names.
    """

    def __init__(self, evaluation: str, frame_ids: Sequence[str] = ()) -> None:
        self._evaluation = evaluation
        self._positions = {frame_id: index for index, frame_id in enumerate(frame_ids)}

    def __getitem__(self, frame_id: str) -> int:
        """The position of a frame.

        Raises:
            ValueError: if the dataset has no such frame, or none at all.
        """
        if not self._positions:
            raise ValueError(f"{self._evaluation} has no ground truth yet: call bind(dataset) first.")
        if frame_id not in self._positions:
            raise ValueError(
                f"{self._evaluation}: there are predictions for frame {frame_id}, which the dataset does not have. "
                "Evaluate with the split that the predictions were made on."
            )
        return self._positions[frame_id]
