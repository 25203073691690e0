"""The measures of any encoder: equal to computing them directly, and no trace on the model."""

from __future__ import annotations

import copy

import pytest
import torch

from adperception.evaluation.encoder_evaluation import EncoderEvaluation, occupied_rows
from adperception.models.pretrain.bev_mae import BEVMAE
from tests.stand_in_model import StandInModel, make_batch

RANGE, VOXEL = [0.0, -6.4, -3.0, 12.8, 6.4, 1.0], [0.1, 0.1, 0.1]


def test_measures_and_leaves_everything_as_it_was() -> None:
    torch.manual_seed(0)
    model = BEVMAE(RANGE, VOXEL)
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    evaluation = EncoderEvaluation()
    batches = [make_batch(seed) for seed in range(2)]
    values = evaluation(model, batches, device="cpu", step=0)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert values == evaluation(model, batches, device="cpu", step=5)
    assert {"val_loss", "val_loss_points", "val_loss_density", *evaluation.headline} <= set(values)
    assert values["val_loss"] == pytest.approx(values["val_loss_points"] + values["val_loss_density"], rel=1e-5)
    assert 1 <= values["effective_rank"] <= 256
    assert -1 <= values["encoder_pair_cosine"] <= 1


def test_rows_are_those_of_occupied_cells() -> None:
    voxels = make_batch(0, frames=2).voxels
    bev = torch.rand(2, 3, 16, 16) + 0.1
    rows = occupied_rows(bev, voxels)
    cells = sorted({(b, y // 8, x // 8) for b, _, y, x in voxels.coordinates.tolist()})
    expected = torch.stack([bev[b, :, y, x] / bev[b, :, y, x].norm() for b, y, x in cells])
    torch.testing.assert_close(rows, expected)


def test_other_models_and_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="StandInModel has no online_encoder"):
        EncoderEvaluation()(StandInModel(), [make_batch(0)], device="cpu", step=0)
    with pytest.raises(ValueError, match="statistics_batches=3 is too few"):
        EncoderEvaluation(statistics_batches=3)
    with pytest.raises(ValueError, match="probe_frames=0"):
        EncoderEvaluation(probe_frames=0)
