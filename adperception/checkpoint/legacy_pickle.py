"""Reading pickled checkpoints of other libraries without executing anything in them. For converters only."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adperception.checkpoint.layout import CheckpointError

__all__ = ["read_pickled_checkpoint"]

# Scheduled learning rates and momenta stand in optimizer states as numpy numbers. Their constructor has moved between
# numpy versions; files know both names.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


def read_pickled_checkpoint(path: Path | str) -> dict[str, Any]:
    """The dictionary in a ``.pth`` file, of torch's zip format or the older one.

    torch's weights-only reader builds tensors and plain containers, and here numpy numbers; anything else is refused
    by name.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file is damaged, holds another kind of object, or names a type that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no checkpoint here.")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: not read: {_reason(error)}") from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: is damaged or not a checkpoint ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a dictionary with weights.")
    return content


def _reason(error: Exception) -> str:
    """The line of torch's message that names what was refused, without its advice to read the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if "global" in line.lower()]
    return lines[0] if lines else "it is not a pickled checkpoint."
