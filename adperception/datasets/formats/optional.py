"""Libraries that only some formats need, imported when such a file is read."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["import_extra"]


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """The module ``module``.

    Args:
        module: its import name, e.g. ``"pyarrow.feather"``.
        extra: the extra of this package that installs it.
        purpose: what it is needed for, a plural (``".ply clouds"``).

    Raises:
        ImportError: if it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{purpose} need {module.partition(".")[0]}, which is not installed: pip install "adperception[{extra}]"'
        ) from error
