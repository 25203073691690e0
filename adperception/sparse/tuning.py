"""Block sizes of the Triton kernels: defaults that run everywhere, and measured ones from a file.

Nothing is ever tuned while a model runs. ``tools/tune_sparse.py`` measures beforehand and writes the file; a training
run reads it once and falls back on the defaults. So no process of a job can be busy tuning while the others wait for it
in a collective, and a run does not change its kernels half way.

The file (``sparse_tuning.json`` in :func:`cache_folder`) holds one entry per device and version of the software, since
neither speed nor the best block sizes carry over.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "ConvolveBlocks",
    "DeviceTuning",
    "WeightGradientBlocks",
    "as_options",
    "block_key",
    "cache_folder",
    "convolve_blocks",
    "device_key",
    "forget_tuning",
    "read_tuning",
    "size_class",
    "weight_gradient_blocks",
    "write_tuning",
]

FORMAT_VERSION = 1
"""Of the file; files of other versions are ignored."""

KERNEL_VERSION = 1
"""To be raised when a kernel changes, so that older measurements no longer count."""


@dataclass(frozen=True)
class ConvolveBlocks:
    """How ``triton_kernels.convolve`` cuts its work.

    Attributes:
        rows: rows per program.
        in_channels: channels per step of the product.
        out_channels: channels per program.
        warps: of 32 threads.
        stages: steps whose loads are under way together.
    """

    rows: int
    in_channels: int
    out_channels: int
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True)
class WeightGradientBlocks:
    """How ``triton_kernels.weight_gradient`` cuts its work.

    Attributes:
        pairs: pairs per step of the product.
        in_channels: channels per program.
        out_channels: likewise.
        segments: into how many pieces all pairs are cut; each is one program, and its sum is kept until all are added.
        warps: of 32 threads.
        stages: steps whose loads are under way together.
    """

    pairs: int
    in_channels: int
    out_channels: int
    segments: int = 512
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True)
class DeviceTuning:
    """What was measured on one device.

    Attributes:
        backends: per precision (``"float32"``, ``"bfloat16"``, ``"float16"``) milliseconds of each backend in one and
            the same job, forward and backward.
        blocks: options of the two classes above by :func:`block_key`.
    """

    backends: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    blocks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def fastest(self, precision: str) -> tuple[str, ...]:
        """The measured backends, the fastest first."""
        times = self.backends.get(precision, {})
        return tuple(sorted(times, key=times.__getitem__))


_known: dict[torch.device, DeviceTuning] = {}


def cache_folder() -> Path:
    """Where measurements of this machine are kept: ``adperception`` in the user's cache folder."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "adperception"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "adperception"


def device_key(device: torch.device) -> str:
    """Name of a device together with everything else that decides how fast a kernel is on it."""
    if device.type != "cuda":
        return device.type
    try:
        import triton

        compiler = f"triton {triton.__version__}"
    except ImportError:
        compiler = "no triton"
    name = torch.cuda.get_device_name(device)
    return f"{name}, torch {torch.__version__}, {compiler}, kernels {KERNEL_VERSION}"


def size_class(rows: int) -> int:
    """Numbers of rows within a factor of two share their blocks: the exponent of the next power of two, at least 10."""
    return max(10, (rows - 1).bit_length())


def block_key(kind: str, precision: str, in_channels: int, out_channels: int, volume: int, rows: int) -> str:
    """Under which blocks are kept, e.g. ``"convolve bfloat16 64x64 taps 27 rows 2^17"``."""
    return f"{kind} {precision} {in_channels}x{out_channels} taps {volume} rows 2^{size_class(rows)}"


def read_tuning(device: torch.device) -> DeviceTuning:
    """What is known of a device. Read once per process; an unreadable or foreign file counts as none."""
    if device not in _known:
        _known[device] = _stored(device)
    return _known[device]


def _stored(device: torch.device) -> DeviceTuning:
    if device.type != "cuda":
        return DeviceTuning()
    entry = _read(cache_folder() / "sparse_tuning.json").get(device_key(device), {})
    try:
        return DeviceTuning(dict(entry.get("backends", {})), dict(entry.get("blocks", {})))
    except (AttributeError, TypeError, ValueError):
        return DeviceTuning()


def forget_tuning() -> None:
    """Read the file again at the next use."""
    _known.clear()


def write_tuning(device: torch.device, tuning: DeviceTuning) -> Path:
    """Add measurements of a device to the file, in one atomic step; what others measured on other devices stays.

    Returns:
        The file.
    """
    folder = cache_folder()
    path = folder / "sparse_tuning.json"
    folder.mkdir(parents=True, exist_ok=True)
    devices = _read(path)
    known = devices.get(device_key(device), {})
    devices[device_key(device)] = {
        "backends": {**known.get("backends", {}), **tuning.backends},
        "blocks": {**known.get("blocks", {}), **tuning.blocks},
    }
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps({"version": FORMAT_VERSION, "devices": devices}, indent=1) + "\n", "utf-8")
    unfinished.replace(path)
    forget_tuning()
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        return dict(content["devices"]) if content["version"] == FORMAT_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def convolve_blocks(
    precision: str, in_channels: int, out_channels: int, volume: int, rows: int, device: torch.device
) -> ConvolveBlocks:
    """Blocks for ``rows`` rows: measured ones if there are any, else defaults.

    Args:
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        in_channels: channels of the product's input.
        out_channels: of its output.
        volume: taps.
        rows: rows of the output.
        device: where it runs.
    """
    known = read_tuning(device).blocks.get(
        block_key("convolve", precision, in_channels, out_channels, volume, rows), None
    )
    if known is not None:
        return ConvolveBlocks(**known)
    wide = 32 if precision == "float32" else 64
    out = min(_padded(out_channels), 64 if precision == "float32" else 128)
    # A small job is cut finer, so that there are a few programs for each of a large GPU's hundred-odd processors.
    row_block = 64 if rows < 2**15 or precision == "float32" else 128
    return ConvolveBlocks(row_block, min(_padded(in_channels), wide), out, 8 if row_block * out >= 128 * 128 else 4)


def weight_gradient_blocks(
    precision: str, in_channels: int, out_channels: int, volume: int, rows: int, device: torch.device
) -> WeightGradientBlocks:
    """Likewise for the gradient of the weight; ``rows`` are those of the layer's output."""
    known = read_tuning(device).blocks.get(
        block_key("weight_gradient", precision, in_channels, out_channels, volume, rows), None
    )
    if known is not None:
        return WeightGradientBlocks(**known)
    pairs = 32 if precision == "float32" else 64
    return WeightGradientBlocks(pairs, min(_padded(in_channels), 64), min(_padded(out_channels), 64))


def as_options(blocks: ConvolveBlocks | WeightGradientBlocks) -> dict[str, int]:
    """Plain values for the file."""
    return asdict(blocks)


def _padded(channels: int) -> int:
    """The next power of two, at least the 16 that a matrix product takes."""
    return max(16, 1 << (channels - 1).bit_length())
