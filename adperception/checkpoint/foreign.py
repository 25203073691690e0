"""Telling which library wrote a checkpoint, from the names of its tensors, and how to convert it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.legacy_pickle import read_pickled_checkpoint

__all__ = ["PICKLE_SUFFIXES", "ForeignLibrary", "foreign_hint", "model_state", "pickle_hint", "recognise"]

PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")


@dataclass(frozen=True)
class ForeignLibrary:
    """A library whose checkpoints can be converted.

    Attributes:
        key: what ``tools/convert_checkpoint.py --from`` calls it.
        title: for sentences.
        prefix: what names of its tensors start with.
    """

    key: str
    title: str
    prefix: str


# In this order: the AD-L-JEPA release extends OpenPCDet's names.
_LIBRARIES = (
    ForeignLibrary("ad_l_jepa", "a checkpoint of the AD-L-JEPA release", "backbone_3d.encoder."),
    ForeignLibrary("openpcdet", "an OpenPCDet checkpoint", "backbone_3d."),
    ForeignLibrary("mmdetection3d", "an mmdetection3d checkpoint", "middle_encoder."),
    ForeignLibrary("mmdetection3d", "an mmdetection3d checkpoint", "pts_middle_encoder."),
    ForeignLibrary("mvrss", "an MVRSS checkpoint", "rd_encoding_branch."),
    ForeignLibrary("mvrss", "an MVRSS checkpoint", "rd_double_conv_block1."),
)


def recognise(names: Iterable[str]) -> ForeignLibrary | None:
    """The library that names its tensors so, if it is a known one."""
    names = list(names)
    return next((library for library in _LIBRARIES if any(n.startswith(library.prefix) for n in names)), None)


def foreign_hint(path: Path, names: Iterable[str]) -> str:
    """What the file looks like and the command that converts it; empty if its names are of no known library."""
    library = recognise(names)
    if library is None:
        return ""
    return (
        f'The file looks like {library.title} (keys start with "{library.prefix}"). Convert it: '
        f"python tools/convert_checkpoint.py --from {library.key} {path}"
    )


def pickle_hint(path: Path) -> str:
    """``foreign_hint`` of a pickled file, read by the reader that builds tensors only."""
    try:
        names = list(model_state(read_pickled_checkpoint(path)))
    except CheckpointError as error:
        return f"It cannot be converted either: {str(error).removeprefix(f'{path}: ')}"
    return foreign_hint(path, names) or (
        "Its tensor names are of no library that can be converted (OpenPCDet, mmdetection3d, AD-L-JEPA, MVRSS)."
    )


def model_state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in what a checkpoint file held: below ``model_state`` (OpenPCDet), ``state_dict`` (mmengine), or all.

    A prefix ``module.`` that data-parallel wrappers leave on every name is taken off.
    """
    state = next((content[key] for key in ("model_state", "state_dict") if isinstance(content.get(key), dict)), content)
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors
