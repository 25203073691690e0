"""Carrying out the cells of a study: data made once, runs that go on where they stopped, an end after a given time."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adperception.checkpoint.layout import newest_complete
from adperception.config import Config
from adperception.engine.checkpointing import checkpoint_root
from adperception.engine.claims import claimed
from adperception.engine.console import say
from adperception.engine.run import RunOptions
from adperception.engine.settings import parse_settings
from adperception.engine.stop_signals import StopSignals
from adperception.engine.trainer import Trainer
from adperception.registry import PREPARATIONS, build

__all__ = [
    "CONSOLE_FILE",
    "POLL_SECONDS",
    "Train",
    "can_go_on",
    "make_data_once",
    "printed_to",
    "time_limit",
    "train_or_go_on",
]

CONSOLE_FILE = "console.txt"
"""In the folder of a cell whose run is one of very many: what it printed."""

POLL_SECONDS = 5.0
"""How long a start without work waits before it looks again what the others have finished."""

_REMIND_SECONDS = 2.0

Train = Callable[..., Trainer]


def can_go_on(folder: Path) -> bool:
    """Whether the run in ``folder`` was begun and has a complete checkpoint."""
    return newest_complete(checkpoint_root(folder), say) is not None


def train_or_go_on(config: Config, folder: Path, device: str | None, train: Train) -> Trainer:
    """Train in ``folder``, from its newest complete checkpoint if there is one."""
    return train(config, RunOptions(folder, resume=can_go_on(folder), device=device))


def make_data_once(configs: Iterable[Config], work_dir: Path) -> None:
    """Make the data that the configs name, so that their frames can be counted.

    Of several starts one makes them while the others wait: two at once would write the same files, and the quicker one
    would train on what the other is just writing again.
    """
    sections: list[Mapping[str, Any]] = []
    for config in configs:
        section = parse_settings(config.values).prepare
        if section is not None and section not in sections:
            sections.append(section)
    preparations = [build(PREPARATIONS, section) for section in sections]
    while preparations:
        with claimed(work_dir / "prepare") as mine:
            if mine:
                for prepare in preparations:
                    prepare()
                return
        time.sleep(POLL_SECONDS)


@contextmanager
def printed_to(path: Path) -> Iterator[None]:
    """What is printed meanwhile goes to the end of a file."""
    with (
        path.open("a", encoding="utf-8", buffering=1) as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        yield


@contextmanager
def time_limit(minutes: float | None) -> Iterator[Callable[[], bool]]:
    """End the run at hand by SIGTERM after ``minutes``, which stops it after its current step, with a checkpoint.

    SIGINT and SIGTERM between two runs are noted as well, and passed on to a run that was just being set up and did not
    listen yet. Yields a function: was there a signal, or is the time over?
    """
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    finished = threading.Event()
    with StopSignals() as signals:

        def is_over() -> bool:
            return bool(signals.received) or time.monotonic() >= end

        def remind() -> None:
            left = end - time.monotonic()
            while not finished.wait(min(left, _REMIND_SECONDS) if left > 0 else _REMIND_SECONDS):
                left = end - time.monotonic()
                if is_over():
                    os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=remind, daemon=True)
        thread.start()
        try:
            yield is_over
        finally:
            finished.set()
            thread.join()
