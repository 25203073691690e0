"""TMVA-Net and MV-Net against stored outputs of the released networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adperception.models.radar.mv_net import MVNet
from adperception.models.radar.tmva_net import TMVANet
from adperception.models.radar.view_segmentation import ViewLogits, ViewSegmentation

pytestmark = pytest.mark.golden

ADDED = {"normalization.limits", "class_weights"}


def loaded(kind: Any, stored: Any) -> ViewSegmentation:
    model: ViewSegmentation = kind(normalization="carrada_tvt", class_weights="carrada")
    state = {k.removeprefix("state/"): torch.from_numpy(stored[k]) for k in stored.files if k.startswith("state/")}
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) == ADDED
    assert not unexpected
    return model.eval()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("kind", "name"), [(TMVANet, "tmva_net"), (MVNet, "mv_net")])
def test_logits_and_losses(kind: Any, name: str, golden: Path) -> None:
    stored = np.load(golden / f"{name}.npz")
    model = loaded(kind, stored)
    views = [torch.from_numpy(stored[f"input/{v}"]).float() for v in ("rd", "ra", "ad") if f"input/{v}" in stored]
    with torch.no_grad():
        logits: ViewLogits = model.logits(*(v.reshape(len(v), -1, *v.shape[-2:]) for v in views))
    close(logits.range_doppler.numpy(), stored["eval/rd_logits"])
    close(logits.range_angle[:, :, ::2, ::2].numpy(), stored["eval/ra_logits[:,:,::2,::2]"])
    if "loss/total" not in stored:
        return
    terms = model.losses(logits, *(torch.from_numpy(stored[f"target/{v}"]).long() for v in ("rd", "ra"))).terms
    expected = {
        "loss_range_doppler_cross_entropy": stored["loss/rd/wce"] / 2,
        "loss_range_doppler_dice": stored["loss/rd/sdice_x10"] / 2,
        "loss_range_angle_cross_entropy": stored["loss/ra/wce"] / 2,
        "loss_range_angle_dice": stored["loss/ra/sdice_x10"] / 2,
        "loss_coherence": stored["loss/coherence_x5"],
        "loss": stored["loss/total"],
    }
    assert {n: float(v) for n, v in terms.items()} == pytest.approx(
        {n: float(v) for n, v in expected.items()}, rel=1e-5
    )
