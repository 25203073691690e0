"""State dicts of mmdetection3d's SECOND and CenterPoint to ours and back.

Facts about mmdetection3d 1.0 and newer that decide what can be carried over:

* ``middle_encoder`` (``SparseEncoder`` with plain blocks) is VoxelBackBone8x under other names; ``backbone`` and
  ``neck`` are the 2D network, whose padding is inside the convolutions, so that indices shift by one.
* ``Anchor3DHead`` orders channels as anchor, then value, and anchors as class, then heading, as ours does, but with its
  own order of classes: rows are permuted. Box codes are the same.
* Its direction classifier divides headings at ``dir_offset`` (-pi/2 unless the config says otherwise), ours at
  ``direction_offset`` (pi/4 unless the config says otherwise). Which of two bins a heading lies in depends on the box,
  so no change of weights makes up for a difference: such a head is refused.
* ``CenterHead`` has no bias before batch norm where ours has one (zero, or taken into the running mean), and puts
  sine before cosine where ours puts cosine first. Velocities have no counterpart here and are refused.

Before version 1.0 boxes had other axes and another heading; such files are refused too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adperception.checkpoint.layout import CheckpointError
from adperception.models.heads.box_coder import DIRECTION_OFFSET

__all__ = ["direction_offset_of", "from_mmdetection3d", "to_mmdetection3d"]

_UPSTREAM_OFFSET = -math.pi / 2
_ANCHOR_HEADINGS = 2
_CENTER_BRANCHES = {"center": "reg", "center_z": "height", "dim": "dim", "rot": "rot", "hm": "heatmap"}


def from_mmdetection3d(
    state: Mapping[str, Tensor],
    *,
    classes: Sequence[str] = (),
    own_classes: Sequence[str] = (),
    direction_offset: float | None = None,
    own_direction_offset: float = DIRECTION_OFFSET,
) -> dict[str, Tensor]:
    """Convert the state dict of a ``VoxelNet`` (SECOND) or ``CenterPoint``, kernels in any layout.

    Args:
        state: tensors by name, with or without the prefix ``pts_`` of multi-modal detectors.
        classes: the file's classes in their order, if it has a head.
        own_classes: the classes of our model in their order; the same names.
        direction_offset: ``dir_offset`` of the file's config, for an anchor head; ``None``: mmdetection3d's default.
        own_direction_offset: ``direction_offset`` of our model, which has to be the same.

    Returns:
        Our names, float32 where floating point; sparse kernels as they were.

    Raises:
        CheckpointError: naming the tensor that has no counterpart, or whose meaning differs.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _our_name(key)
        converted[name] = value.float() if value.is_floating_point() else value
    if "dense_head.conv_cls.weight" in converted:
        _check_direction(direction_offset, own_direction_offset)
        _reorder_anchors(converted, _class_order(classes, own_classes))
    elif any(name.startswith("dense_head.heads_list.") for name in converted):
        _reorder_center(converted, _class_order(classes, own_classes))
        for name in [n for n in converted if re.fullmatch(r"dense_head\.(shared_conv|.*\.0)\.0\.weight", n)]:
            bias = name.removesuffix("weight") + "bias"
            converted.setdefault(bias, torch.zeros(len(converted[name])))
    return converted


def to_mmdetection3d(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a SECOND's or CenterPoint's state dict (kernels in KRSC stay so).

    Classes keep our order. A bias before batch norm goes into the running mean, which changes no output.

    Raises:
        CheckpointError: for a tensor that mmdetection3d's models do not have, by name.
    """
    state = dict(state)
    for bias in [n for n in state if re.fullmatch(r"dense_head\.(shared_conv|.*\.0)\.0\.bias", n)]:
        mean = bias.removesuffix("0.bias") + "1.running_mean"
        state[mean] = state[mean] - state.pop(bias)
    _swap_sine_and_cosine(state)
    return {_their_name(key): value for key, value in state.items()}


def direction_offset_of(config_text: str) -> float:
    """``dir_offset`` in the text of an mmdetection3d config, or its default.

    Raises:
        CheckpointError: if the config uses anchors at other places than ours.
    """
    if "AlignedAnchor3DRangeGenerator" in config_text:
        raise CheckpointError(
            "bbox_head: the file's config has AlignedAnchor3DRangeGenerator, whose anchors stand in the middle of "
            "their cells; ours are spread from border to border of the range. The head cannot be converted; --part "
            "encoder takes the encoder."
        )
    found = re.search(r"\bdir_offset\s*=\s*(-?[\d.]+)", config_text)
    return float(found.group(1)) if found else _UPSTREAM_OFFSET


def _our_name(key: str) -> str:
    name = key.removeprefix("pts_")
    part, _, rest = name.partition(".")
    if part == "middle_encoder":
        if re.match(r"encoder_layers\.encoder_layer\d\.\d\.(conv|bn)[12]\.", rest):
            raise CheckpointError(
                f'from_mmdetection3d: "{key}" belongs to an encoder of residual blocks (block_type="basicblock"), '
                "which are not converted."
            )
        return "backbone_3d." + re.sub(r"^encoder_layers\.encoder_layer(\d)\.", r"conv\1.", rest)
    if part == "backbone" and (match := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)", rest)):
        block, index, tensor = match.groups()
        return f"backbone_2d.blocks.{block}.{int(index) + 1}.{tensor}"
    if part == "neck" and re.fullmatch(r"deblocks\.\d+\.[01]\.\w+", rest):
        return f"backbone_2d.{rest}"
    if part == "bbox_head":
        return "dense_head." + _our_head_name(key, rest)
    raise CheckpointError(f'from_mmdetection3d: "{key}" belongs to no module of the detectors here.')


def _our_head_name(key: str, rest: str) -> str:
    if match := re.fullmatch(r"conv_(cls|reg|dir_cls)\.(weight|bias)", rest):
        return f"conv_{match[1].replace('reg', 'box')}.{match[2]}"
    if match := re.fullmatch(r"shared_conv\.(conv|bn)\.(\w+)", rest):
        return f"shared_conv.{'0' if match[1] == 'conv' else '1'}.{match[2]}"
    if match := re.fullmatch(r"task_heads\.(\d+)\.(\w+)\.(\d)(?:\.(conv|bn))?\.(\w+)", rest):
        task, branch, layer, inner, tensor = match.groups()
        ours = next((o for o, theirs in _CENTER_BRANCHES.items() if theirs == branch), None)
        if ours is None:
            raise CheckpointError(
                f'from_mmdetection3d: "{key}" predicts "{branch}", which no model here does (position, size, heading '
                "and class only)."
            )
        if task != "0":
            raise CheckpointError(
                f'from_mmdetection3d: "{key}" belongs to a second group of classes; the CenterPoint here has one group.'
            )
        middle = f"{layer}.{'0' if inner == 'conv' else '1'}" if inner else layer
        return f"heads_list.{task}.{ours}.{middle}.{tensor}"
    raise CheckpointError(f'from_mmdetection3d: "{key}" is not a tensor of Anchor3DHead or CenterHead as known here.')


def _their_name(key: str) -> str:
    part, _, rest = key.partition(".")
    if part == "backbone_3d":
        return "middle_encoder." + re.sub(r"^conv(\d)\.", r"encoder_layers.encoder_layer\1.", rest)
    if part == "backbone_2d" and (match := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)", rest)):
        return f"backbone.blocks.{match[1]}.{int(match[2]) - 1}.{match[3]}"
    if part == "backbone_2d" and rest.startswith("deblocks."):
        return f"neck.{rest}"
    if match := re.fullmatch(r"dense_head\.conv_(cls|box|dir_cls)\.(weight|bias)", key):
        return f"bbox_head.conv_{match[1].replace('box', 'reg')}.{match[2]}"
    if match := re.fullmatch(r"dense_head\.shared_conv\.([01])\.(\w+)", key):
        return f"bbox_head.shared_conv.{'conv' if match[1] == '0' else 'bn'}.{match[2]}"
    if match := re.fullmatch(r"dense_head\.heads_list\.(\d+)\.(\w+)\.(\d)(?:\.([01]))?\.(\w+)", key):
        task, branch, layer, inner, tensor = match.groups()
        middle = f"{layer}.{'conv' if inner == '0' else 'bn'}" if inner else layer
        return f"bbox_head.task_heads.{task}.{_CENTER_BRANCHES[branch]}.{middle}.{tensor}"
    raise CheckpointError(f'to_mmdetection3d: "{key}" has no counterpart in mmdetection3d\'s SECOND or CenterPoint.')


def _check_direction(offset: float | None, own: float) -> None:
    offset = _UPSTREAM_OFFSET if offset is None else offset
    if abs(offset - own) > 1e-3:
        raise CheckpointError(
            f"bbox_head.conv_dir_cls: this file's direction bins begin at {math.degrees(offset):.0f} degrees "
            f"(dir_offset={offset:.4g}), the model's at {math.degrees(own):.0f}; which bin a heading lies in depends "
            "on the box, so the weights cannot be rewritten. Give --model a config with "
            f"model.direction_offset={offset:.4f}; or --part encoder takes the encoder alone; if the file was trained "
            "with another dir_offset than it says, say so with --direction-offset."
        )


def _class_order(classes: Sequence[str], own: Sequence[str]) -> list[int]:
    """Where each of our classes stands in the file."""
    if not classes or not own:
        raise CheckpointError(
            "bbox_head: the order of classes is needed: the file's with --classes (its metadata do not have it), ours "
            "with --model. Or take the encoder alone with --part encoder."
        )
    if sorted(classes) != sorted(own):
        raise CheckpointError(f"bbox_head: the file's classes are {', '.join(classes)}, the model's {', '.join(own)}.")
    return [list(classes).index(name) for name in own]


def _reorder_anchors(state: dict[str, Tensor], order: list[int]) -> None:
    """Bring the rows of an anchor head from the file's order of classes to ours, in place."""
    count = len(order)
    for name, values in (("conv_cls", count), ("conv_box", 7), ("conv_dir_cls", 2)):
        for tensor in ("weight", "bias"):
            key = f"dense_head.{name}.{tensor}"
            if key not in state:
                raise CheckpointError(f"from_mmdetection3d: the anchor head lacks {_their_name(key)}.")
            rows = state[key]
            if len(rows) != count * _ANCHOR_HEADINGS * values:
                raise CheckpointError(
                    f"from_mmdetection3d: {_their_name(key)} has {len(rows)} rows; {count} classes with one anchor "
                    f"size and two headings each need {count * _ANCHOR_HEADINGS * values}."
                )
            blocks = rows.view(count, _ANCHOR_HEADINGS, values, *rows.shape[1:])[order]
            if name == "conv_cls":
                blocks = blocks[:, :, order]
            state[key] = blocks.reshape(rows.shape).contiguous()


def _reorder_center(state: dict[str, Tensor], order: list[int]) -> None:
    _swap_sine_and_cosine(state)
    for tensor in ("weight", "bias"):
        key = f"dense_head.heads_list.0.hm.1.{tensor}"
        if key not in state or len(state[key]) != len(order):
            found = f"{len(state[key])} rows" if key in state else "nothing"
            raise CheckpointError(f"from_mmdetection3d: {len(order)} classes, but {found} at {_their_name(key)}.")
        state[key] = state[key][order].contiguous()


def _swap_sine_and_cosine(state: dict[str, Tensor]) -> None:
    for key in [n for n in state if re.fullmatch(r"dense_head\.heads_list\.\d+\.rot\.1\.(weight|bias)", n)]:
        state[key] = state[key].flip(0).contiguous()
