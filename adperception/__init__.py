"""Perception models for autonomous-driving sensors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adperception.engine.inference import infer

__all__ = ["__version__", "infer"]

__version__ = "0.1.0"

# Waiting OpenMP threads of torch's CPU build spin for about a millisecond. Where another process wants the core, each
# of the thousands of small operations of a sparse step then waits that long: seen 28 s instead of 0.3 s for one pass.
# A short spin costs nothing measurable on an idle machine. It has an effect if this package is imported before torch.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def __getattr__(name: str) -> Any:
    """``adperception.infer``, imported when it is first asked for: torch takes seconds."""
    if name == "infer":
        from adperception.engine.inference import infer

        return infer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
