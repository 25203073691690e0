"""Dividing work between processes that share a folder: whoever holds the lock of a piece does it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["claimed"]


@contextmanager
def claimed(piece: Path) -> Iterator[bool]:
    """Try to get hold of ``piece``; yields whether that worked. The operating system lets go when a process dies.

    Args:
        piece: a path that names the piece of work; the lock is an empty file beside it, ``<piece>.lock``.
    """
    piece.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{piece}.lock", os.O_RDWR | os.O_CREAT)
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)  # and with it the lock


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
