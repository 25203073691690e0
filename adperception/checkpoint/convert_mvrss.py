"""State dicts of the MVRSS release (TMVA-Net, MV-Net) and of PKCIn-Net, which extends it, to ours and back.

Our networks carry its module names. What differs is what we keep beside the weights: the limits of the normalisation
and the class weights. MVRSS has both in files of its own; they are the published ones of CARRADA.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adperception.checkpoint.layout import CheckpointError
from adperception.losses.weighted_cross_entropy import CARRADA_CLASS_WEIGHTS
from adperception.models.radar.mv_net import MVNet
from adperception.models.radar.normalization import ViewNormalization
from adperception.models.radar.pkcin_net import PKCInNet
from adperception.models.radar.tmva_net import TMVANet
from adperception.models.radar.view_segmentation import ViewSegmentation

__all__ = ["from_mvrss", "to_mvrss"]

_ADDED = ("class_weights", "normalization.limits")
_CLASSES = 4


def from_mvrss(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a network's state dict, float32 where floating point; CARRADA's published statistics are added.

    Raises:
        CheckpointError: for a tensor that the network does not have or that is missing, by name, and for a network of
            other classes than CARRADA's.
    """
    kind = _kind(state)
    with torch.device("meta"):
        known = set(kind().state_dict()).difference(_ADDED)  # type: ignore[call-arg]
    strange, missing = sorted(set(state) - known), sorted(known - set(state))
    if strange or missing:
        problem = f'"{strange[0]}" is not a tensor of it' if strange else f'"{missing[0]}" is missing'
        raise CheckpointError(f"from_mvrss: taken for {kind.__name__}, but {problem}.")
    outputs = len(state["rd_final.weight"])
    if outputs != _CLASSES:
        raise CheckpointError(
            f"from_mvrss: the network has {outputs} outputs, but only CARRADA's {_CLASSES} classes (with background) "
            "have published class weights."
        )
    published = [CARRADA_CLASS_WEIGHTS[view] for view in ("range_doppler", "range_angle")]
    statistics = {
        "class_weights": torch.tensor(published, dtype=torch.float64),
        "normalization.limits": ViewNormalization("carrada_tvt").limits,
    }
    weights = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    return {**weights, **statistics}


def _kind(state: Mapping[str, Tensor]) -> type[ViewSegmentation]:
    if not any(name.startswith("rd_encoding_branch.") for name in state):
        return MVNet
    return PKCInNet if any(".double_pkc_block." in name for name in state) else TMVANet


def to_mvrss(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a network's state dict: what MVRSS keeps elsewhere is left out.

    Raises:
        CheckpointError: if it is neither TMVA-Net's nor PKCIn-Net's nor MV-Net's.
    """
    if "rd_final.weight" not in state or not set(_ADDED) <= set(state):
        raise CheckpointError("to_mvrss: these are not the tensors of TMVA-Net, PKCIn-Net or MV-Net.")
    return {name: value for name, value in state.items() if name not in _ADDED}
