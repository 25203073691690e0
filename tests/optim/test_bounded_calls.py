from __future__ import annotations

import gc
import threading
import time

import pytest

from adperception.optim.bounded_calls import BoundedCalls


def fail() -> None:
    raise ArithmeticError("of the function")


def test_answers_and_errors_come_through() -> None:
    calls = BoundedCalls()
    assert calls(lambda: 3, 1.0) == 3
    with pytest.raises(ArithmeticError, match="of the function"):
        calls(fail, 1.0)
    assert calls(lambda: "still there", 1.0) == "still there"


def test_gives_up_at_the_limit() -> None:
    calls, release = BoundedCalls(), threading.Event()
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        calls(release.wait, 0.2)
    assert 0.2 <= time.monotonic() - start < 0.6
    release.set()
    assert calls(lambda: 5, 1.0) == 5  # not the answer of before


def test_thread_ends_with_the_object() -> None:
    before = set(threading.enumerate())
    calls = BoundedCalls()
    calls(lambda: None, 1.0)
    (thread,) = set(threading.enumerate()) - before
    del calls
    gc.collect()
    thread.join(2.0)
    assert not thread.is_alive()
