"""Looking at a buffer once, and again only after it was written to: each look makes the host wait for a GPU."""

from __future__ import annotations

from torch import Tensor

__all__ = ["Seen"]


class Seen:
    """Remembers which state of a buffer was looked at last."""

    def __init__(self) -> None:
        self._state: tuple[int, int] | None = None

    def is_new(self, buffer: Tensor) -> bool:
        """Whether ``buffer`` may have changed since the last call: it is at another place, or was written to in place.

        Tensors made in inference mode do not count what is written to them; they are always new.
        """
        if buffer.is_inference():
            return True
        state = (buffer.data_ptr(), buffer._version)
        new, self._state = state != self._state, state
        return new
