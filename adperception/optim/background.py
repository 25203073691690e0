"""A call in a thread of its own, whose outcome is taken later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Background"]

_Result = TypeVar("_Result")


class Background(Generic[_Result]):
    """Starts ``call`` at once. What it returns, or raises, comes out of ``result``.

    Args:
        call: torch operations and waiting for the network leave the interpreter to other threads.
    """

    def __init__(self, call: Callable[[], _Result]) -> None:
        self._call = call
        self._results: list[_Result] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:  # raised again where the result is asked for
            self._error = error
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Whether it is done, after so many seconds at the latest."""
        return self._done.wait(seconds)

    def result(self) -> _Result:
        """What the call returned, once it has."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._results[0]
