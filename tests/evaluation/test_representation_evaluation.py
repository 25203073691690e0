from __future__ import annotations

import copy
import logging
import math

import pytest
import torch
from stand_in_model import StandInModel, make_batch
from torch import nn

from adperception.evaluation.batch_norm_statistics import mask_generator, with_reestimated_batch_norm
from adperception.evaluation.representation import Moments, covariance_spectrum, effective_rank
from adperception.evaluation.representation_evaluation import RepresentationEvaluation
from adperception.registry import EVALUATIONS, build
from adperception.structures import LidarFrame, PointCloud
from adperception.zoo import create_model


@pytest.fixture(scope="module")
def data():
    return [make_batch(0), make_batch(1), make_batch(2, frames=1)]


def test_values_equal_a_plain_computation(data):
    model = StandInModel()
    values = RepresentationEvaluation(mask_seed=3)(model, data, device="cpu", step=10)
    oracle = with_reestimated_batch_norm(model, data, device="cpu", mask_seed=3)
    losses, context, prediction, target = [], [], [], []
    with torch.no_grad():
        for index, batch in enumerate(data):
            losses.append(float(oracle(batch, mask_generator(3, 0, index)).total) * len(batch))
            e = oracle.embed(batch, mask_generator(3, 0, index))
            context.append(e.context.movedim(1, -1)[e.masks.context_cells])
            prediction.append(e.prediction.movedim(1, -1)[e.masks.target_cells])
            target.append(e.target.movedim(1, -1)[e.masks.target_cells])
    assert values["val_loss"] == pytest.approx(sum(losses) / 5, rel=1e-6)
    assert values["val_loss_cells"] == pytest.approx(values["val_loss"])
    assert "val_statistic" not in values
    rows = torch.cat(context)
    assert values["effective_rank"] == pytest.approx(effective_rank(covariance_spectrum(Moments.of(rows))), rel=1e-6)
    deviation = rows.double().std(0)
    for name, value in (("min", deviation.min()), ("mean", deviation.mean()), ("max", deviation.max())):
        assert values[f"standard_deviation_{name}"] == pytest.approx(float(value), rel=1e-6)
    cosine = (torch.cat(prediction).double() * torch.cat(target).double()).sum(1).mean()
    assert values["prediction_target_cosine"] == pytest.approx(float(cosine), rel=1e-5)


def test_fixed_masks_give_equal_values_and_the_model_stays_as_it_was(data):
    model = StandInModel().train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    evaluation = RepresentationEvaluation()
    first = evaluation(model, data, device="cpu", step=1)
    second = evaluation(model, data, device="cpu", step=2)
    assert first == second
    assert all(math.isfinite(value) for value in first.values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert RepresentationEvaluation(mask_seed=1)(model, data, device="cpu", step=1)["val_loss"] != first["val_loss"]


def test_says_that_statistics_were_reestimated(data, caplog):
    with caplog.at_level(logging.INFO, logger="adperception"):
        RepresentationEvaluation(alarm_effective_rank=1.0)(StandInModel(), data, device="cpu", step=7)
    assert "step 7: batch-norm statistics re-estimated over 15 batches, on a copy of the model" in caplog.text
    assert "ALARM" not in caplog.text


def test_collapse_sounds_the_alarm(data, caplog):
    values = RepresentationEvaluation()(StandInModel(collapsed=True), data, device="cpu", step=42)
    assert values["effective_rank"] == 1.0
    assert values["context_pair_cosine"] == pytest.approx(1.0)
    alarms = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(alarms) == 2
    assert alarms[0].startswith("COLLAPSE ALARM at step 42: effective rank of the context embeddings is 1, below 16.")
    assert "Raise the variance weight" in alarms[0]
    assert "mean standard deviation" in alarms[1]


def test_stale_running_statistics_do_not_matter(data):
    fresh, stale = StandInModel(), StandInModel()
    stale.norm.running_mean += 100.0
    stale.norm.running_var *= 1e6
    evaluation = RepresentationEvaluation()
    assert evaluation(fresh, data, device="cpu", step=0) == evaluation(stale, data, device="cpu", step=0)


def test_probe_frames_limit_the_embeddings_but_not_the_loss(data):
    model = StandInModel()
    few = RepresentationEvaluation(probe_frames=1)(model, data, device="cpu", step=0)
    all_ = RepresentationEvaluation()(model, data, device="cpu", step=0)
    first_only = RepresentationEvaluation()(model, data[:1], device="cpu", step=0)
    assert few["val_loss"] == all_["val_loss"]
    assert few["effective_rank"] != all_["effective_rank"]
    assert few["effective_rank"] != first_only["effective_rank"]  # other batch-norm statistics


def test_bad_options_and_models_are_named(data):
    with pytest.raises(ValueError, match="statistics_batches=5 is too few"):
        RepresentationEvaluation(statistics_batches=5)
    with pytest.raises(ValueError, match="probe_frames=0 must be 1 or more"):
        RepresentationEvaluation(probe_frames=0)
    with pytest.raises(ValueError, match="Linear has no embed and no losses"):
        RepresentationEvaluation()(nn.Linear(1, 1), data, device="cpu", step=0)


def test_is_built_from_a_config():
    evaluation = build(EVALUATIONS, {"type": "RepresentationEvaluation", "every_epochs": 2})
    assert evaluation.every_epochs == 2


def test_the_real_model_has_the_interface_and_is_deterministic():
    model = create_model("ad_l_jepa_small", point_cloud_range=[0.0, -6.4, -3.0, 12.8, 6.4, 1.0])
    frames = [LidarFrame(str(i), PointCloud(make_batch(i, frames=1).points[0].numpy())) for i in range(2)]
    batches = [model.collate(training=False)(frames)]
    evaluation = RepresentationEvaluation()
    first = evaluation(model, batches, device="cpu", step=0)
    assert first == evaluation(model, batches, device="cpu", step=0)
    assert all(math.isfinite(value) for value in first.values())
    assert 1 <= first["effective_rank"] <= 256
    assert first["val_loss"] == pytest.approx(first["val_loss_prediction"] + first["val_loss_variance"], rel=1e-5)
    # Predictions are non-negative and the token is Gaussian: the cosine of empty cells has a ceiling.
    token = model.empty_token.detach()
    assert first["prediction_target_cosine_empty"] <= float(token.clamp(min=0).norm() / token.norm())
