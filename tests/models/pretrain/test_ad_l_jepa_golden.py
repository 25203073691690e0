"""AD-L-JEPA against stored outputs of the released implementation: every ``ad_l_jepa*.npz`` of the golden folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adperception.checkpoint.convert_ad_l_jepa import from_ad_l_jepa
from adperception.models.pretrain.ad_l_jepa import ADLJEPA, Embeddings
from adperception.models.pretrain.bev_masking import BevMasks, masks_from_noise, non_empty_cells
from adperception.structures import Voxels

pytestmark = pytest.mark.golden

LOSSES = {
    "total": "loss",
    "loss_jepa": "loss_prediction",
    "loss_reg": "loss_variance",
    "loss_reg_context_context_voxels": "loss_variance_context",
    "loss_reg_target_target_voxels": "variance_hinge_target",
    "loss_reg_prediction_target_voxels": "loss_variance_prediction",
    "loss_cos_jepa_target_voxels": "loss_prediction_cells",
    "loss_cos_jepa_target_empty_voxels": "loss_prediction_empty",
    "var_context_context_voxels": "channel_variance_context",
    "var_target_target_voxels": "channel_variance_target",
    "var_prediction_target_voxels": "channel_variance_prediction",
    "var_prediction_target_empty_voxels": "channel_variance_prediction_empty",
}
MASKS = {
    "bev_mask_encoder": "context_cells",
    "bev_mask_target_encoder": "target_cells",
    "bev_mask_encoder_empty": "context_empty",
    "bev_mask_target_encoder_empty": "target_empty",
}


@dataclass
class Golden:
    arrays: dict[str, np.ndarray]
    model: ADLJEPA
    voxels: Voxels
    masks: BevMasks

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key].astype(np.float32))


def golden_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("ad_l_jepa*.npz"))
    assert files, f"no ad_l_jepa*.npz in {folder}"
    return files


def load(path: Path, device: torch.device) -> Golden:
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    ratio = round(float(arrays["meta/masked_ratio"]), 6)
    model = ADLJEPA(
        [round(float(v), 6) for v in arrays["meta/point_cloud_range"]],
        [round(float(v), 6) for v in arrays["meta/voxel_size"]],
        in_channels=arrays["input/voxel_features"].shape[1],
        mask_ratio=ratio,
        prediction_weight=float(arrays["meta/alpha"]),
        variance_weight=float(arrays["meta/beta"]),
    )
    state = {k.removeprefix("state/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("state/")}
    converted, _ = from_ad_l_jepa(state)
    model.load_state_dict(converted, strict=True)
    model.to(device)
    coordinates = torch.from_numpy(arrays["input/voxel_coords"]).to(device)
    features = torch.from_numpy(arrays["input/voxel_features"]).to(device)
    voxels = Voxels(features, coordinates, int(coordinates[:, 0].max()) + 1)
    occupied = non_empty_cells(coordinates, voxels.batch_size, model.context_encoder.bev_shape, 8)
    masks = masks_from_noise(
        occupied,
        torch.from_numpy(arrays["mask/noise_nonempty_cells"]).to(device),
        torch.from_numpy(arrays["mask/noise_bev"]).to(device),
        ratio,
    )
    return Golden(arrays, model, voxels, masks)


def sampled(array: Tensor, key: str) -> Tensor:
    """The positions of ``array`` that the suffix of ``key`` says are stored, e.g. ``[:,:,::2,::2]``."""
    if "[" not in key:
        return array
    index = []
    for axis in key[key.index("[") + 1 : -1].split(","):
        parts = [int(p) if p else None for p in axis.split(":")]
        index.append(slice(*parts))
    return array[tuple(index)]


def check_outputs(golden: Golden, mode: str, embeddings: Embeddings) -> None:
    compared = 0
    for key in golden.arrays:
        for name in ("context", "prediction", "target"):
            if key.startswith(f"{mode}/{name}"):
                expected = golden.tensor(key)
                actual = sampled(getattr(embeddings, name), key).detach().cpu()
                tolerance = 1e-4 * float(expected.abs().max())
                assert float((actual - expected).abs().max()) <= tolerance, key
                compared += 1
    assert compared >= 3
    terms = golden.model.losses(embeddings).terms
    for theirs, ours in LOSSES.items():
        expected_loss = float(golden.arrays[f"{mode}/loss/{theirs}"])
        assert float(terms[ours]) == pytest.approx(expected_loss, rel=1e-5), theirs


def test_masks_are_equal(golden: Path, placement: torch.device) -> None:
    for path in golden_files(golden):
        stored = load(path, placement)
        for theirs, ours in MASKS.items():
            expected = torch.from_numpy(stored.arrays[f"mask/{theirs}"])
            assert torch.equal(getattr(stored.masks, ours).cpu(), expected), (path.name, theirs)


def test_evaluation_mode(golden: Path, placement: torch.device) -> None:
    for path in golden_files(golden):
        stored = load(path, placement)
        stored.model.eval()
        check_outputs(stored, "eval", stored.model.embed_masked(stored.voxels, stored.masks))


def test_training_mode_and_batch_norm_statistics_after_it(golden: Path, placement: torch.device) -> None:
    for path in golden_files(golden):
        stored = load(path, placement)
        stored.model.train()
        check_outputs(stored, "train", stored.model.embed_masked(stored.voxels, stored.masks))
        state = stored.model.state_dict()
        after = [key for key in stored.arrays if key.startswith("train/after/")]
        assert after
        for key in after:
            ((name, _),) = from_ad_l_jepa({key.removeprefix("train/after/"): torch.zeros(())})[0].items()
            expected = stored.tensor(key)
            assert float((state[name].cpu() - expected).abs().max()) <= 1e-4 * float(expected.abs().max()), key
