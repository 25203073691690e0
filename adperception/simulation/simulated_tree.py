"""What the simulators of dataset trees share: a tree is made once, known by its manifest, the same for any number of
processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

__all__ = ["MANIFEST", "SimulatedTree"]

MANIFEST = "simulation.json"


class SimulatedTree(ABC):
    """Makes a tree of simulated frames, or finds it made.

    A complete tree carries a manifest, ``simulation.json``, with its options; a tree that is not complete is begun
    again. Pieces (frames or drives) are made by a picklable function of their number, in any order.

    Args:
        root: folder of the tree.
        frames: number of frames.
        seed: names the recording; same seed, same bytes.
        workers: processes that simulate; 1 works in this process. Does not change the result.
        columns: firings of each beam per turn.
        splits: split name to its share, in this order; shares sum to 1.

    Raises:
        ValueError: for options that make no sense.
    """

    def __init__(
        self, root: str | Path, frames: int, seed: int, workers: int, columns: int, splits: dict[str, float]
    ) -> None:
        self.root = Path(root)
        self.splits = dict(splits)
        self.frames, self.seed, self.workers, self.columns = frames, seed, workers, columns
        if frames < 1 or workers < 1 or columns < 1 or seed < 0:
            raise ValueError(
                f"{self._name}: frames={frames}, workers={workers}, columns={columns} must be at least 1 and "
                f"seed={seed} at least 0."
            )
        if abs(sum(self.splits.values()) - 1) > 1e-6 or min(self.splits.values()) < 0:
            raise ValueError(f"{self._name}: splits={self.splits} must be shares that sum to 1.")

    frames_per_second_per_core: float | None = None
    """Measured speed of the last call that simulated, writing included; ``None`` if nothing was simulated."""

    def __call__(self) -> Path:
        """Make the tree unless it is there.

        Returns:
            The root of the tree.

        Raises:
            ValueError: if the folder holds a complete tree of other options, or files that no simulation made.
        """
        if self._complete():
            return self.root
        self._make_folders()
        self._write_manifest(complete=False)
        started = time.perf_counter()
        self._make()
        self._write_manifest(complete=True)
        elapsed = time.perf_counter() - started
        self.frames_per_second_per_core = self.frames / elapsed / min(self.workers, os.cpu_count() or 1)
        return self.root

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What the bytes of the tree depend on, as the manifest stores it."""

    @abstractmethod
    def _make_folders(self) -> None:
        """Make the folders that the pieces are written to."""

    @abstractmethod
    def _make(self) -> None:
        """Simulate and write everything but the manifest."""

    def split_of_pieces(self, pieces: int) -> list[str]:
        """The split of each piece: drawn, not cut, and the same for the same seed."""
        names = [""] * pieces
        order = np.random.default_rng([self.seed, self.frames, 1]).permutation(pieces)
        first, total = 0, 0.0
        for name, share in self.splits.items():
            total += share
            end = round(total * pieces)
            for piece in order[first:end]:
                names[piece] = name
            first = end
        return names

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _run(self, job: Callable[[int], Any], pieces: int, frames_per_piece: Callable[[int], int]) -> Iterator[Any]:
        """The results of ``job(0) ... job(pieces - 1)`` in any order, with a progress bar that counts frames."""
        with tqdm(total=self.frames, desc=f"simulating {self.root.name}", unit="frame", miniters=1) as bar:
            for piece, result in self._results(job, pieces):
                bar.update(frames_per_piece(piece))
                yield result

    def _results(self, job: Callable[[int], Any], pieces: int) -> Iterator[tuple[int, Any]]:
        numbered = _Numbered(job)
        if self.workers == 1:
            yield from map(numbered, range(pieces))
            return
        # Forked processes start at once (spawned ones import everything again) and need only numpy, as those of a
        # torch data loader do.
        method = "fork" if sys.platform == "linux" else "spawn"
        with multiprocessing.get_context(method).Pool(min(self.workers, pieces)) as pool:
            yield from pool.imap_unordered(numbered, range(pieces), chunksize=2 if pieces > 2 * self.workers else 1)

    def _complete(self) -> bool:
        """Whether the tree is there; refuses a folder that this simulation must not touch."""
        manifest = self.root / MANIFEST
        if not manifest.is_file():
            if self.root.is_dir() and any(self.root.iterdir()):
                raise ValueError(
                    f"{self._name}: {self.root} is not empty and has no {MANIFEST}, so no simulation made it. "
                    "Choose another root, or remove the folder."
                )
            return False
        try:
            stored = json.loads(manifest.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{manifest}: not readable ({error}). Remove the folder {self.root}.") from error
        differing = [
            f"{key}: there {stored.get('options', {}).get(key)!r}, wanted {value!r}"
            for key, value in self.options.items()
            if stored.get("options", {}).get(key) != value
        ]
        if differing:
            raise ValueError(
                f"{self._name}: {self.root} was made with other options ({'; '.join(differing)}). Choose another "
                "root, or remove the folder."
            )
        return bool(stored.get("complete"))

    def _write_manifest(self, *, complete: bool) -> None:
        text = json.dumps({"options": self.options, "complete": complete}, indent=2) + "\n"
        temporary = self.root / f"{MANIFEST}.part"
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(self.root / MANIFEST)


class _Numbered:
    """A job that gives its number back with its result."""

    def __init__(self, job: Callable[[int], Any]) -> None:
        self.job = job

    def __call__(self, piece: int) -> tuple[int, Any]:
        return piece, self.job(piece)
