"""Reading pickled checkpoints of other libraries without executing anything in them. For converters only."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adperception.checkpoint.layout import CheckpointError

__all__ = ["read_pickled_checkpoint"]

# Scheduled learning rates and momenta stand in optimizer states as numpy numbers. Their constructor has moved between
# numpy versions; files know both names.
_SCALAR = np.float64(0).__reduce__()[0]


class _Ignored:
    """Stands in for objects that lie beside the weights and are of no use here; keeps nothing."""

    def __setstate__(self, state: object) -> None: ...


def _ignore(*_: object) -> _Ignored:
    """Stands in for functions that would build such objects; calls nothing."""
    return _Ignored()


_HARMLESS: list[Any] = [
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    # mmengine keeps the curves of a run in its checkpoints, as numpy arrays inside objects of its own.
    (_Ignored, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_Ignored, "numpy.ndarray"),
    (_ignore, "numpy.core.multiarray._reconstruct"),
    (_ignore, "numpy._core.multiarray._reconstruct"),
    (_ignore, "builtins.getattr"),
]


def read_pickled_checkpoint(path: Path | str) -> dict[str, Any]:
    """The dictionary in a ``.pth`` file, of torch's zip format or the older one.

    torch's weights-only reader builds tensors and plain containers, and here numpy numbers. The logged curves that
    mmengine stores beside the weights are replaced by nothing. Anything else is refused by name.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file is damaged, holds another kind of object, or names a type that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no checkpoint here.")
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
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
