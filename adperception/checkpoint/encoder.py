"""Starting a detector from a pre-trained encoder: every tensor of it, or an error.

Which part of a file is the encoder stands in the file: its metadata name the model that was trained, and that model's
class says where its encoders are (``TrainableModel.ENCODERS``). File and folder names mean nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from adperception.checkpoint.foreign import PICKLE_SUFFIXES, foreign_hint, pickle_hint
from adperception.checkpoint.layout import CheckpointError, file_sha256
from adperception.checkpoint.load import abbreviate, read_metadata, read_tensors, weights_file
from adperception.models.base import TrainableModel
from adperception.registry import MODELS

__all__ = ["FIRST_LAYER", "EncoderReport", "FirstLayer", "load_encoder"]

_logger = logging.getLogger("adperception")

FIRST_LAYER = "conv_input.0.weight"
"""The one tensor of an encoder whose shape depends on the features per point: ``(16, 3, 3, 3, C_in)``."""

FirstLayer = Literal["strict", "reinit", "slice"]


@dataclass(frozen=True)
class EncoderReport:
    """What an encoder was filled with.

    Attributes:
        source: the weights file.
        sha256: its checksum.
        branch: which encoder of the source was taken (``"context"``, ``"target"``, ...).
        loaded: number of tensors taken from the file.
        total: number of tensors of the model's encoder.
        first_layer: what was done with the first layer: ``"loaded"``, ``"reinit"`` or ``"slice"``.
        notes: what the reader should know, e.g. another voxel size.
        metadata: what the file says about itself.
    """

    source: Path
    sha256: str
    branch: str
    loaded: int
    total: int
    first_layer: str
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"initialised from {self.source}: {self.loaded}/{self.total} encoder tensors"
        return ". ".join((text, *self.notes))

    def record(self) -> dict[str, Any]:
        """The same as plain values, for a results file."""
        return {
            "source": str(self.source),
            "sha256": self.sha256,
            "branch": self.branch,
            "tensors_loaded": self.loaded,
            "tensors_total": self.total,
            "first_layer": self.first_layer,
            "notes": list(self.notes),
            "metadata": dict(self.metadata),
        }


def load_encoder(
    model: TrainableModel,
    path: Path | str,
    *,
    expect: Literal["all"] | Sequence[str] = "all",
    branch: str | None = None,
    first_layer: FirstLayer = "strict",
) -> EncoderReport:
    """Fill the encoder of ``model`` from a pre-training checkpoint (or another detector's), in place.

    Batch-norm statistics are tensors like the others. The model is left untouched if anything does not fit.

    Args:
        model: the model to start; the first branch of its ``ENCODERS`` is filled.
        path: a checkpoint directory (its checksums are verified) or a ``.safetensors`` file of this package.
        expect: ``"all"``: every tensor of the encoder, and nothing else below it in the file. A list of name prefixes
            inside the encoder, e.g. ``["conv_input.", "conv1."]``: these must be there, the rest keeps its values.
        branch: which encoder of the source to take, by its name there; ``None``: its first one (a pre-training's
            context encoder).
        first_layer: what to do if source and model have different numbers of features per point. ``"strict"`` refuses,
            ``"reinit"`` leaves the first convolution as it was initialised, ``"slice"`` takes the weights of the
            source's first features. Where the numbers agree, the layer is loaded.

    Returns:
        What was taken from where.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        CheckpointError: if the file is not one of this package, does not say what it is, has no such branch, or lacks
            a tensor; for another shape both are named.
    """
    if first_layer not in ("strict", "reinit", "slice"):
        raise ValueError(f'load_encoder: first_layer="{first_layer}" is unknown. Available: strict, reinit, slice.')
    if not model.ENCODERS:
        raise ValueError(f"load_encoder: {type(model).__name__} has no encoder to fill (its ENCODERS is empty).")
    own = _below(model.state_dict(), next(iter(model.ENCODERS.values())))
    path = Path(path)
    if path.is_file() and path.suffix in PICKLE_SUFFIXES:
        raise CheckpointError(f"{path}: 0 of {len(own)} backbone tensors matched. {pickle_hint(path)}")
    file = weights_file(path)
    tensors, metadata = read_tensors(file), read_metadata(file)
    encoders = _encoders_of(file, metadata, tensors, len(own))
    branch = branch if branch is not None else next(iter(encoders))
    if branch not in encoders:
        raise CheckpointError(f'{file}: has no encoder "{branch}". Available: {", ".join(encoders)}.')
    given = _below(tensors, encoders[branch])
    wanted = {name for name in own if expect == "all" or name.startswith(tuple(expect))}
    _check_names(file, wanted, given, encoders[branch], expect)

    notes = list(_geometry_notes(metadata, model))
    taken = {name: given[name] for name in wanted}
    done = "loaded"
    if FIRST_LAYER in taken and taken[FIRST_LAYER].shape != own[FIRST_LAYER].shape:
        features = taken[FIRST_LAYER].shape[-1], own[FIRST_LAYER].shape[-1]
        replacement = _fit_first_layer(file, taken.pop(FIRST_LAYER), own[FIRST_LAYER], first_layer)
        done = first_layer
        if replacement is None:
            notes.append(f"{FIRST_LAYER} left as initialised (file {features[0]} point features, model {features[1]})")
        else:
            taken[FIRST_LAYER] = replacement
            notes.append(f"{FIRST_LAYER} cut to the first {features[1]} of the file's {features[0]} point features")
    _check_shapes(file, taken, own)
    with torch.no_grad():
        for name, value in taken.items():
            own[name].copy_(value)
    report = EncoderReport(file, file_sha256(file), branch, len(taken), len(own), done, tuple(notes), metadata)
    if notes:
        _logger.warning("%s", report)
    return report


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _encoders_of(file: Path, metadata: Mapping[str, Any], names: Mapping[str, Tensor], total: int) -> Mapping[str, str]:
    """Prefixes of the encoders in a file, by branch, from its metadata."""
    config, encoders = metadata.get("model_config"), metadata.get("encoders")
    if isinstance(config, Mapping):
        try:
            encoders = MODELS.find(config).ENCODERS
        except ValueError as error:
            raise CheckpointError(f"{file}: says that it holds a model that is not known here: {error}") from error
    if isinstance(encoders, Mapping) and encoders:
        return encoders
    if isinstance(config, Mapping):
        raise CheckpointError(f'{file}: was written by a model of type "{config.get("type")}", which has no encoder.')
    hint = foreign_hint(file, names) or "Its metadata do not say what it is. Use a file that this package has written."
    raise CheckpointError(f"{file}: 0 of {total} backbone tensors matched. {hint}")


def _check_names(
    file: Path, wanted: set[str], given: Mapping[str, Tensor], prefix: str, expect: Literal["all"] | Sequence[str]
) -> None:
    if not wanted:
        raise CheckpointError(f"{file}: the model's encoder has no tensor below expect={expect!r}.")
    missing, surplus = sorted(wanted - given.keys()), sorted(given.keys() - wanted) if expect == "all" else []
    if not missing and not surplus:
        return
    lines = [f'{file}: {len(wanted) - len(missing)} of {len(wanted)} encoder tensors matched below "{prefix}".']
    if missing:
        lines.append(f"Missing in the file: {abbreviate(missing)}.")
    if surplus:
        lines.append(f"Not in the model's encoder: {abbreviate(surplus)}.")
    lines.append("The encoders have another architecture; nothing was loaded.")
    raise CheckpointError(" ".join(lines))


def _fit_first_layer(file: Path, given: Tensor, own: Tensor, policy: FirstLayer) -> Tensor | None:
    """The first layer's weights cut to the model's number of features; ``None`` keeps the model's own.

    Raises:
        CheckpointError: if the policy does not allow it, or the shapes differ in more than the features.
    """
    shapes = f"{FIRST_LAYER}: file {tuple(given.shape)}, model {tuple(own.shape)}"
    if given.shape[:-1] != own.shape[:-1]:
        raise CheckpointError(f"{file}: {shapes}. The encoders have another architecture; nothing was loaded.")
    if policy == "reinit":
        return None
    if policy == "slice" and given.shape[-1] > own.shape[-1]:
        return given[..., : own.shape[-1]]
    features = f"{given.shape[-1]} features per point in the file, {own.shape[-1]} in the model"
    choices = 'first_layer="reinit" starts this layer anew'
    if given.shape[-1] > own.shape[-1]:
        choices += ', first_layer="slice" takes the first features'
    elif policy == "slice":
        choices = 'first_layer="slice" needs a file with more features than the model; "reinit" starts this layer anew'
    raise CheckpointError(f"{file}: {shapes} ({features}). {choices}.")


def _check_shapes(file: Path, taken: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    wrong = [
        f"{name}: file {tuple(value.shape)}, model {tuple(own[name].shape)}"
        for name, value in sorted(taken.items())
        if value.shape != own[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{file}: {len(wrong)} of {len(taken)} encoder tensors have another shape: {abbreviate(wrong)}. "
            "Nothing was loaded."
        )


def _geometry_notes(metadata: Mapping[str, Any], model: TrainableModel) -> list[str]:
    """Filters learnt at one voxel size see another scale at a different one; that is legal but worth a line."""
    config: Any = metadata.get("model_config")
    theirs = config.get("voxel_size") if isinstance(config, Mapping) else None
    ours = getattr(getattr(model, "grid", None), "voxel_size", None)
    if theirs is None or ours is None or all(abs(a - b) < 1e-9 for a, b in zip(theirs, ours, strict=True)):
        return []
    return [f"pre-trained with voxels of {_metres(theirs)}, this model has {_metres(ours)}"]


def _metres(size: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in size) + " m"
