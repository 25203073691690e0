"""Whole files of OpenPCDet, mmdetection3d, the AD-L-JEPA and the MVRSS release to our names and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from adperception.checkpoint.convert_ad_l_jepa import from_ad_l_jepa, to_ad_l_jepa
from adperception.checkpoint.convert_mmdetection3d import (
    direction_offset_of,
    from_mmdetection3d,
    to_mmdetection3d,
)
from adperception.checkpoint.convert_mvrss import from_mvrss, to_mvrss
from adperception.checkpoint.convert_openpcdet import from_openpcdet, to_openpcdet
from adperception.checkpoint.foreign import PICKLE_SUFFIXES, model_state, recognise
from adperception.checkpoint.kernel_layout import from_krsc, infer_kernel_layout, norm_of, sparse_kernels, to_krsc
from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.legacy_pickle import read_pickled_checkpoint
from adperception.checkpoint.load import read_tensors
from adperception.models.base import DetectionModel
from adperception.models.heads.box_coder import DIRECTION_OFFSET
from adperception.models.pretrain.ad_l_jepa import ADLJEPA

__all__ = ["LIBRARIES", "Converted", "default_layout", "read_foreign", "write_foreign"]

LIBRARIES = ("openpcdet", "mmdetection3d", "ad_l_jepa", "mvrss")
Library = Literal["openpcdet", "mmdetection3d", "ad_l_jepa", "mvrss"]


@dataclass(frozen=True)
class Converted:
    """A file of another library in our terms.

    Attributes:
        library: where it comes from.
        state: tensors under our names, kernels in KRSC.
        layout: the layout that the sparse kernels were in; ``None`` if the network has none.
        layout_inferred: whether that was concluded from shapes (else it was given).
        encoders: prefixes of the encoders, by branch.
        step: optimizer steps, if the file counts them.
        notes: what the reader should know.
    """

    library: str
    state: dict[str, Tensor]
    layout: str | None
    layout_inferred: bool
    encoders: Mapping[str, str]
    step: int | None = None
    notes: tuple[str, ...] = ()

    def encoder(self) -> dict[str, Tensor]:
        """The tensors of the first encoder, without prefix."""
        prefix = next(iter(self.encoders.values()))
        return {name.removeprefix(prefix): value for name, value in self.state.items() if name.startswith(prefix)}


def read_foreign(
    path: Path,
    library: str | None = None,
    *,
    kernel_layout: str | None = None,
    encoder_only: bool = False,
    classes: Sequence[str] = (),
    own_classes: Sequence[str] = (),
    direction_offset: float | None = None,
    own_direction_offset: float = DIRECTION_OFFSET,
) -> Converted:
    """Read and convert a checkpoint.

    Args:
        path: a pickled file, of torch's zip format or the older one, or ``.safetensors``.
        library: who wrote it; ``None``: recognised by its tensor names.
        kernel_layout: layout of its sparse kernels; ``None``: inferred, see ``infer_kernel_layout``.
        encoder_only: take the sparse 3D encoder (of AD-L-JEPA: both) and leave the rest.
        classes: for mmdetection3d: the file's classes in order; default: those in its metadata.
        own_classes: the order wanted here.
        direction_offset: for mmdetection3d's anchor heads: ``dir_offset``; default: the one in its metadata.
        own_direction_offset: ``direction_offset`` of our model.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it cannot be read or converted faithfully, naming the tensor.
    """
    content: dict[str, Any] = (
        read_pickled_checkpoint(path) if path.suffix in PICKLE_SUFFIXES else dict(read_tensors(path))
    )
    state = model_state(content)
    if library is None:
        found = recognise(state)
        if found is None:
            raise CheckpointError(
                f"{path}: its tensor names are of no library that can be converted ({', '.join(LIBRARIES)}). The first "
                f"are {', '.join(list(state)[:3]) or 'none'}."
            )
        library = found.key
    notes: list[str] = []
    step: int | None = None
    try:
        if library == "mvrss":
            if encoder_only or kernel_layout is not None:
                raise CheckpointError("a radar network has neither a sparse encoder nor sparse kernels.")
            notes.append("class weights and normalisation are CARRADA's published ones, which the file does not hold")
            return Converted(library, from_mvrss(state), None, True, {}, None, tuple(notes))
        if encoder_only:
            state = {name: value for name, value in state.items() if _is_encoder(name)}
        if library == "ad_l_jepa":
            converted, step = from_ad_l_jepa(state)
            encoders = ADLJEPA.ENCODERS
        elif library == "openpcdet":
            converted, step = from_openpcdet(state)
            encoders = DetectionModel.ENCODERS
        else:
            if not encoder_only:  # the encoder has neither classes nor headings
                known_classes, known_offset = _mmdetection3d_meta(content, notes)
                classes = classes or known_classes
                direction_offset = known_offset if direction_offset is None else direction_offset
            converted = from_mmdetection3d(
                state,
                classes=classes,
                own_classes=own_classes,
                direction_offset=direction_offset,
                own_direction_offset=own_direction_offset,
            )
            encoders = DetectionModel.ENCODERS
        layout = kernel_layout or infer_kernel_layout(converted)
        krsc = to_krsc(converted, layout)
        if kernel_layout is not None:
            _check_given_layout(converted, krsc, kernel_layout)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Converted(library, krsc, layout, kernel_layout is None, encoders, step, tuple(notes))


def default_layout(library: str) -> str:
    """The kernel layout that a library expects in a file: mmdetection3d reads files without a version as spconv 1's."""
    return "RSCK" if library == "mmdetection3d" else "KRSC"


def write_foreign(
    path: Path,
    library: str,
    state: Mapping[str, Tensor],
    *,
    step: int = 0,
    kernel_layout: str | None = None,
    class_names: Sequence[str] = (),
    direction_offset: float = DIRECTION_OFFSET,
) -> int:
    """Write our tensors as a checkpoint of another library; returns the number of tensors.

    Raises:
        CheckpointError: for a tensor that the library's models do not have, by name.
    """
    cpu = {name: value.detach().cpu().clone() for name, value in state.items()}
    if library == "mvrss":
        converted = to_mvrss(cpu)
        torch.save(converted, path)
        return len(converted)
    laid_out = from_krsc(cpu, kernel_layout or default_layout(library))
    if library == "mmdetection3d":
        converted = to_mmdetection3d(laid_out)
        fragment = f"bbox_head = dict(dir_offset={direction_offset}, dir_limit_offset=0)"
        meta = {"dataset_meta": {"classes": list(class_names)}, "cfg": fragment, "iter": step}
        torch.save({"meta": meta, "state_dict": converted}, path)
    else:
        convert = to_openpcdet if library == "openpcdet" else to_ad_l_jepa
        converted = convert(laid_out, step)
        torch.save({"model_state": converted, "it": step}, path)
    return len(converted)


def _is_encoder(name: str) -> bool:
    """Whether a foreign tensor belongs to a sparse 3D encoder, or what the AD-L-JEPA release keeps beside it."""
    return name.removeprefix("pts_").startswith(("backbone_3d.", "middle_encoder."))


def _mmdetection3d_meta(content: Mapping[str, Any], notes: list[str]) -> tuple[tuple[str, ...], float]:
    """Classes and direction offset from a file's ``meta``; refuses files from before version 1.0."""
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    version = str(meta.get("mmdet3d_version", ""))
    if version.startswith("0."):
        raise CheckpointError(
            f"written by mmdetection3d {version}; before 1.0 boxes had another order of sizes and another heading, so "
            "its head would predict nonsense here. --part encoder takes the encoder."
        )
    if not version and "mmengine_version" not in meta:
        notes.append("the file does not say its mmdetection3d version; taken for 1.0 or newer")
    dataset = meta.get("dataset_meta")
    dataset = dataset if isinstance(dataset, Mapping) else meta
    classes = next((dataset[key] for key in ("classes", "CLASSES") if dataset.get(key)), ())
    text = next((str(meta[key]) for key in ("cfg", "config") if meta.get(key)), "")
    return tuple(str(name) for name in classes), direction_offset_of(text)


def _check_given_layout(before: Mapping[str, Tensor], after: Mapping[str, Tensor], layout: str) -> None:
    """A layout that somebody gave must at least make sense of the shapes."""
    for name, kernel in sparse_kernels(after).items():
        norm = before.get(norm_of(name))
        if norm is not None and len(norm) != len(kernel):
            raise CheckpointError(
                f"--kernel-layout {layout}: {name} has the shape {tuple(before[name].shape)}, which would give "
                f"{len(kernel)} output channels, but its batch norm has {len(norm)}."
            )
