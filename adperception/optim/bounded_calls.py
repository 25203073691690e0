"""Calls that end. Operations of a store block for ever if its machine stops answering, whatever its time-out is."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["BoundedCalls"]

_Result = TypeVar("_Result")


class BoundedCalls:
    """Runs functions in a thread of its own, one after the other, and stops waiting for them at a limit.

    While the caller waits, its signal handlers run. The thread ends with this object; it does not keep the interpreter
    from exiting.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=_work_off, args=(self._work,), daemon=True).start()
        weakref.finalize(self, self._work.put, None)

    def __call__(self, function: Callable[[], _Result], limit_seconds: float) -> _Result:
        """What the function returns or raises.

        Raises:
            TimeoutError: it takes longer than the limit. It may still be running.
        """
        answer: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        self._work.put((function, answer))
        try:
            try:
                succeeded, value = answer.get(timeout=0.75 * limit_seconds)
            except queue.Empty:
                # Had this whole process been stopped for a while, the time would be over, but the answer on its way.
                succeeded, value = answer.get(timeout=0.25 * limit_seconds)
        except queue.Empty:
            raise TimeoutError(f"no answer within {limit_seconds:.1f} s") from None
        if not succeeded:
            raise value
        result: _Result = value
        return result


def _work_off(work: queue.SimpleQueue[Any]) -> None:
    while (item := work.get()) is not None:
        function, answer = item
        try:
            answer.put((True, function()))
        except BaseException as error:
            answer.put((False, error))
        # Nothing may keep a process group alive between two calls.
        del item, function, answer
