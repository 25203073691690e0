"""Sentences for the person who watches the run."""

from __future__ import annotations

import logging
import sys

__all__ = ["say", "show_log_messages"]


def say(message: str) -> None:
    """Print one line at once, above a progress bar if there is one."""
    if "tqdm" in sys.modules and sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(message, file=sys.stdout)
    else:
        print(message)
    sys.stdout.flush()


def show_log_messages(is_main: bool) -> None:
    """From now on, print what the package logs: remarks and warnings on the main process, errors on all."""
    logger = logging.getLogger("adperception")
    if not any(isinstance(handler, _SayHandler) for handler in logger.handlers):
        logger.addHandler(_SayHandler())
    logger.setLevel(logging.INFO if is_main else logging.ERROR)


class _SayHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        say(prefix + record.getMessage())
