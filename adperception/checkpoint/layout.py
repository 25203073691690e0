"""What a checkpoint is on disk, and how to tell a complete one from a damaged one.

``<work dir>/checkpoints/step_00000120/`` holds ``model.safetensors``, ``optimizer.safetensors``, one
``rank_00000.safetensors`` per process and ``state.json``. The last one lists size and SHA-256 of the others and of its
own content, so nothing needs to be believed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "FORMAT_VERSION",
    "METADATA_KEY",
    "MODEL_FILE",
    "OPTIMIZER_FILE",
    "STATE_FILE",
    "CheckpointError",
    "FileRecord",
    "list_checkpoints",
    "newest_complete",
    "rank_file",
    "read_state",
    "seal",
    "step_directory",
    "verify",
]

FORMAT_VERSION = 1
MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
METADATA_KEY = "adperception"
"""Header entry of a weights file under which it says what it is."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, is damaged, or does not fit."""


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file."""

    size_bytes: int
    sha256: str


def step_directory(root: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` optimizer steps lies."""
    return root / f"step_{step:08d}"


def rank_file(rank: int) -> str:
    """Name of the file with what belongs to one process."""
    return f"rank_{rank:05d}.safetensors"


def list_checkpoints(root: Path) -> list[Path]:
    """Checkpoint directories below ``root``, newest first, complete or not."""
    found = [path for path in root.glob("step_*") if path.is_dir() and re.fullmatch(r"step_\d{8,}", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")), reverse=True)


def seal(state: Mapping[str, Any], files: Mapping[str, FileRecord]) -> bytes:
    """The content of ``state.json``: ``state``, the records of the other files, and a checksum over both."""
    records = {name: {"size_bytes": record.size_bytes, "sha256": record.sha256} for name, record in files.items()}
    content = {**state, "files": records}
    checksum = hashlib.sha256(_canonical(content)).hexdigest()
    return json.dumps({**content, "state_sha256": checksum}, indent=1, sort_keys=True).encode()


def read_state(directory: Path) -> dict[str, Any]:
    """The checked content of ``state.json``.

    Raises:
        CheckpointError: if it is missing, damaged, or of a newer format.
    """
    path = directory / STATE_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        checksum = content.pop("state_sha256")
    except FileNotFoundError as error:
        raise CheckpointError(f"{directory}: {STATE_FILE} is missing.") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: is truncated or damaged ({error}).") from error
    if hashlib.sha256(_canonical(content)).hexdigest() != checksum:
        raise CheckpointError(f"{path}: its checksum does not match its content.")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format version {version}; this adperception reads version {FORMAT_VERSION}.")
    return content


def verify(directory: Path) -> dict[str, Any]:
    """Read every byte of a checkpoint; returns its state.

    Raises:
        CheckpointError: naming the first file that is missing, too short or changed.
    """
    state = read_state(directory)
    for name, record in state["files"].items():
        path = directory / name
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise CheckpointError(f"{path}: is missing.")
        if size != record["size_bytes"]:
            raise CheckpointError(f"{path}: has {size:,} bytes instead of {record['size_bytes']:,} (truncated?).")
        if file_sha256(path) != record["sha256"]:
            raise CheckpointError(f"{path}: its SHA-256 is not the one recorded in {STATE_FILE} (damaged).")
    return state


def newest_complete(root: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that verifies and its state; every newer one that does not is named through ``say``."""
    for directory in list_checkpoints(root):
        try:
            return directory, verify(directory)
        except CheckpointError as error:
            say(f"skipping an incomplete checkpoint: {error}")
    return None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in portions."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while portion := file.read(1 << 22):
            digest.update(portion)
    return digest.hexdigest()


def sync_directory(path: Path) -> None:
    """Make renames in ``path`` durable (a no-op where directories cannot be opened)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
