"""Sentences for the person who watches the run."""

from __future__ import annotations

import sys

__all__ = ["say"]


def say(message: str) -> None:
    """Print one line at once, above a progress bar if there is one."""
    if "tqdm" in sys.modules and sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(message, file=sys.stdout)
    else:
        print(message)
    sys.stdout.flush()
