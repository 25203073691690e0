"""Loading weights: strict, from safetensors only, with an error that says what the file is and what to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from adperception.checkpoint.foreign import PICKLE_SUFFIXES, foreign_hint, pickle_hint
from adperception.checkpoint.layout import METADATA_KEY, MODEL_FILE, CheckpointError, verify
from adperception.compression.applied_pruning import apply_pruning
from adperception.models.base import Pruning

__all__ = ["LoadReport", "abbreviate", "load_weights", "read_metadata", "read_tensors", "weights_file"]

_logger = logging.getLogger("adperception")


@dataclass(frozen=True)
class LoadReport:
    """What a file gave to a model.

    Attributes:
        loaded: names of the model's tensors that were filled.
        unused: names in the file that the model did not take.
        total: number of the model's tensors that were expected.
    """

    loaded: tuple[str, ...]
    unused: tuple[str, ...]
    total: int

    def __str__(self) -> str:
        return f"{len(self.loaded)}/{self.total} tensors loaded, {len(self.unused)} of the file unused"


def load_weights(model: nn.Module, path: Path | str, *, expect: Literal["all"] | Sequence[str] = "all") -> LoadReport:
    """Fill a model from a checkpoint directory or a ``.safetensors`` file, in place.

    A file of pruned weights makes the model as small as it is, and what was masked stays zero (docs/compression.md).

    Args:
        model: the model to fill; it is left untouched if anything does not fit.
        path: a checkpoint directory (its checksums are verified) or a weights file.
        expect: ``"all"``: the names of model and file must be the same. A list of name prefixes, e.g.
            ``["encoder."]``: every tensor of the model below these must be in the file; the rest of the model keeps
            its values, the rest of the file is unused and mentioned in one warning line.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        CheckpointError: for missing, unexpected or wrongly shaped tensors, and files that are not safetensors.
    """
    file = weights_file(Path(path))
    tensors = read_tensors(file)
    own = model.state_dict()
    wanted = {name for name in own if expect == "all" or name.startswith(tuple(expect))}
    if not wanted:
        raise CheckpointError(f"{file}: {type(model).__name__} has no tensor below expect={expect!r}.")
    missing = sorted(wanted - tensors.keys())
    unused = sorted(tensors.keys() - wanted)
    if missing or (unused and expect == "all"):
        raise CheckpointError(_mismatch(file, model, wanted, missing, unused, expect))
    pruning = read_metadata(file).get("pruning") if expect == "all" else None
    pruned = Pruning.from_dict(pruning) if pruning else Pruning()
    shapes = {name: pruned.shapes.get(name, tuple(own[name].shape)) for name in wanted}
    wrong = [
        f"{name}: file {tuple(tensors[name].shape)}, model {shapes[name]}"
        for name in sorted(wanted)
        if tuple(tensors[name].shape) != shapes[name]
    ]
    if wrong:
        raise CheckpointError(
            f"{file}: {len(wrong)} of {len(wanted)} tensors have another shape than {type(model).__name__}'s: "
            f"{abbreviate(wrong)}. {_origin(file)}Build the model from the config it was trained with."
        )
    if pruning:
        try:
            apply_pruning(model, pruned)
        except ValueError as error:
            raise CheckpointError(f"{file}: {error}") from error
        own = model.state_dict()
    with torch.no_grad():
        for name in wanted:
            own[name].copy_(tensors[name])
    report = LoadReport(tuple(sorted(wanted)), tuple(unused), len(wanted))
    if unused:
        _logger.warning("%s: %s: %s", file, report, abbreviate(unused))
    return report


def read_tensors(file: Path, device: str = "cpu") -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: if it is damaged or not safetensors.
    """
    try:
        with safe_open(str(file), framework="pt", device=device) as content:
            return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: is not a complete safetensors file ({error}).") from error


def read_metadata(path: Path | str) -> dict[str, Any]:
    """What a weights file says about itself: model config, dataset, classes, input channels, kernel layout, versions.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        CheckpointError: if it is damaged or not safetensors.
    """
    file = weights_file(Path(path))
    try:
        with safe_open(str(file), framework="pt") as content:
            header: Mapping[str, str] = content.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: is not a complete safetensors file ({error}).") from error
    description: dict[str, Any] = json.loads(header.get(METADATA_KEY, "{}"))
    return description


def weights_file(path: Path) -> Path:
    """The weights file of a checkpoint directory (verified), or ``path`` itself."""
    if path.is_dir():
        verify(path)
        return path / MODEL_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no checkpoint here.")
    if path.suffix in PICKLE_SUFFIXES:
        raise CheckpointError(f"{path}: is a pickled checkpoint, and unpickling can execute code. {pickle_hint(path)}")
    return path


def _mismatch(
    file: Path, model: nn.Module, wanted: set[str], missing: list[str], unused: list[str], expect: str | Sequence[str]
) -> str:
    what = f"{type(model).__name__} tensors" + ("" if expect == "all" else f" below {', '.join(expect)}")
    matched = len(wanted) - len(missing)
    lines = [f"{file}: {matched} of {len(wanted)} {what} matched."]
    if missing:
        lines.append(f"Missing in the file: {abbreviate(missing)}.")
    if unused and expect == "all":
        lines.append(f"Not in the model: {abbreviate(unused)}.")
    # A detector of ours has OpenPCDet's names; only a file that does not say what it is can be one of theirs.
    hint = "" if read_metadata(file) else foreign_hint(file, unused)
    if hint:
        return " ".join([*lines, hint])
    lines.append(f"{_origin(file)}Build the model from the config it was trained with, or name the part to take.")
    return " ".join(lines)


def _origin(file: Path) -> str:
    """What the file says it is."""
    config = read_metadata(file).get("model_config")
    return f'It was written by a model of type "{config.get("type")}". ' if isinstance(config, dict) else ""


def abbreviate(names: Sequence[str], limit: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
