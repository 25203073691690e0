"""Writing checkpoints so that a kill or a full disk at any moment leaves the last good one in place.

Files go to a temporary directory, each is flushed to the disk, and one rename makes the checkpoint appear. An old
checkpoint is removed only after every byte of the new one has been read back and found right.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as serialise
from torch import Tensor

from adperception.checkpoint.layout import (
    METADATA_KEY,
    STATE_FILE,
    CheckpointError,
    FileRecord,
    list_checkpoints,
    seal,
    step_directory,
    sync_directory,
    verify,
)

__all__ = ["begin", "commit", "describe_failure", "discard", "prune", "remove_leftovers", "write_tensors"]


def begin(root: Path, step: int) -> Path:
    """An empty temporary directory for the checkpoint of ``step``."""
    temporary = root / f".{step_directory(root, step).name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> FileRecord:
    """Write a safetensors file durably.

    Args:
        path: file to create.
        tensors: any device, any memory layout; tensors that share memory are written separately.
        metadata: plain values for the file's header, read back by ``read_metadata``.

    Raises:
        OSError: if the disk is full or not writable.
    """
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    # One entry only: safetensors writes several in random order, and equal checkpoints should be equal files.
    header = {METADATA_KEY: json.dumps(metadata, sort_keys=True)} if metadata else None
    return _write(path, serialise(copies, metadata=header))


def commit(temporary: Path, root: Path, step: int, state: Mapping[str, Any], files: Mapping[str, FileRecord]) -> Path:
    """Complete ``temporary`` with ``state.json``, make it the checkpoint of ``step`` and read it back.

    Returns:
        The checkpoint's directory.

    Raises:
        OSError: if the disk is full or not writable.
        CheckpointError: if what was read back is not what was written.
    """
    _write(temporary / STATE_FILE, seal(state, files))
    sync_directory(temporary)
    final = step_directory(root, step)
    replaced = root / f".{final.name}.replaced.tmp"
    if final.exists():
        final.rename(replaced)
    temporary.rename(final)
    sync_directory(root)
    verify(final)
    shutil.rmtree(replaced, ignore_errors=True)
    return final


def discard(temporary: Path) -> None:
    """Remove what a failed save has written."""
    shutil.rmtree(temporary, ignore_errors=True)


def prune(root: Path, keep: int, protected_steps: Iterable[int]) -> None:
    """Remove all but the newest ``keep`` checkpoints and those of ``protected_steps``. Only after a ``commit``."""
    protected = {step_directory(root, step) for step in protected_steps}
    for directory in list_checkpoints(root)[keep:]:
        if directory not in protected:
            # Renamed first, so that a kill in the middle of the removal leaves no half checkpoint behind.
            doomed = root / f".{directory.name}.old.tmp"
            directory.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(root: Path) -> list[str]:
    """Remove temporary directories of saves that were killed; returns their names."""
    found = sorted(path for path in root.glob(".step_*.tmp") if path.is_dir())
    for path in found:
        original = root / path.name.removeprefix(".").removesuffix(".replaced.tmp")
        if path.name.endswith(".replaced.tmp") and not original.exists():
            path.rename(original)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in found]


def describe_failure(error: OSError, root: Path, step: int) -> CheckpointError:
    """The error to raise for a save that failed, naming the cause, the place and what is left."""
    complete = [path for path in list_checkpoints(root) if _is_complete(path)]
    left = f"The last good checkpoint is {complete[0]}." if complete else "There is no earlier checkpoint."
    reason, fix = f"{error}", "Make the directory writable"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(root).free / 2**20
        reason, fix = f"no space left on the disk ({free:,.0f} MiB free)", "Free some space"
    return CheckpointError(
        f"the checkpoint of step {step} could not be written to {root}: {reason}. {left} The unfinished files were "
        f"removed. {fix} and go on with --resume."
    )


def _is_complete(directory: Path) -> bool:
    try:
        verify(directory)
    except CheckpointError:
        return False
    return True


def _write(path: Path, content: bytes) -> FileRecord:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(len(content), hashlib.sha256(content).hexdigest())
