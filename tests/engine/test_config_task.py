"""A config as a task: the engine's data, the model's own optimizer, target networks and batch norm in the consensus."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adperception.config import load_config
from adperception.engine.config_task import ConfigTask
from adperception.engine.optimizer_methods import Setting
from adperception.engine.optimizer_run import RunSpec, run_simulated
from adperception.engine.optimizer_study import StudyRun, run_optimizer_study
from adperception.engine.optimizer_study_plan import OptimizerStudy
from adperception.engine.randomness import step_generator
from adperception.engine.sampling import SampleOrder

from toy import CONFIG, ToyModel
from toy_study import HARDWARE

SPEC = RunSpec("LSGD", Setting(0.1), "dealt", 2, 0, 4, 3, 2, 0.75, "test", True)


def task(folder: Path, *overrides: str, text: str = CONFIG) -> ConfigTask:
    path = folder / "toy_config.py"
    path.write_text(text, encoding="utf-8")
    return ConfigTask(load_config(path, overrides))


def test_a_run_is_repeatable_to_the_bit_and_scored_on_held_out_frames(tmp_path: Path) -> None:
    runs = [run_simulated(task(tmp_path), SPEC) for _ in range(2)]
    for run in runs:
        run.pop("cpu_seconds")
    assert runs[0] == runs[1]
    other = run_simulated(task(tmp_path), RunSpec(**{**vars(SPEC), "split": "validation"}))
    assert other["training_loss"] == runs[0]["training_loss"]
    assert other["score"] != runs[0]["score"]
    assert all(math.isfinite(row[1]) for row in runs[0]["curve"])
    assert runs[0]["best_worker"] <= runs[0]["mean_worker"]  # a loss


def test_batches_are_those_of_the_engine(tmp_path: Path) -> None:
    made = task(tmp_path)
    model = made.build_model(0)
    assert isinstance(model, ToyModel)
    batches = made.batches(2, 5, "dealt", 3, 4)
    order = SampleOrder(22, 3, 1, 2, seed=5, drop_last=True)
    seen: list[Any] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    batches.loss(model, 1, 2)
    ((batch, generator),) = seen
    assert batch.frame_ids == tuple(f"{index:06d}" for _, index in order.micro_batches(2, 1)[0].items)
    expected = step_generator(5, 2, 1)
    torch.rand(batch.features.shape, generator=expected)
    assert torch.equal(generator.get_state(), expected.get_state())


def test_learning_rates_are_relative_to_the_config(tmp_path: Path) -> None:
    made = task(tmp_path)
    assert made.rate_scale * 0.1 == pytest.approx(0.01)
    assert isinstance(made.build_optimizer(made.build_model(0)), torch.optim.AdamW)


def test_gradients_are_clipped_as_the_config_says(tmp_path: Path) -> None:
    for overrides, limit in ((["train.clip_grad_norm=0.001"], 0.001), (["train.clip_grad_norm=None"], None)):
        made = task(tmp_path, *overrides)
        model = made.build_model(0)
        batches = made.batches(2, 0, "dealt", 3, 4)
        batches.loss(model, 0, 0).backward()  # type: ignore[no-untyped-call]
        batches.before_step(model)
        norm = float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())
        assert norm == pytest.approx(limit) if limit else norm > 0.001


def test_the_averaged_copy_follows_its_worker(tmp_path: Path) -> None:
    made = task(tmp_path)
    model = made.build_model(0)
    assert isinstance(model, ToyModel)
    with torch.no_grad():
        model.online[0].weight.add_(1.0)
    before = model.average[0].weight.clone()
    made.batches(2, 0, "dealt", 3, 4).after_step(model, 0, 4)
    assert torch.allclose(model.average[0].weight, before + 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('val_dataset = dict(type="ToyDataset", frames=5)', ""), "needs a val_dataset"),
        (lambda text: text.replace("accumulate_steps=1", "accumulate_steps=2"), "accumulate_steps has to be 1"),
        (lambda text: text.replace("accumulate_steps=1", 'amp="bf16"'), "train.amp has to be"),
    ],
)
def test_what_is_no_task_is_refused(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    text = change(CONFIG).replace('evaluations = [dict(type="ToyEvaluation", every_epochs=1)]', "")
    with pytest.raises(ValueError, match=message):
        task(tmp_path, text=text)


def test_a_study_of_a_config(tmp_path: Path) -> None:
    options = OptimizerStudy(
        methods=("EASGD",),
        shardings=("dealt",),
        workers=(2,),
        seeds=1,
        steps=2,
        sync_every=1,
        batch_size=3,
        configurations=1,
    )
    results = run_optimizer_study(options, task(tmp_path), StudyRun(tmp_path / "work", HARDWARE))
    assert results.is_complete
    text = (tmp_path / "work/results.md").read_text()
    assert "## Shards dealt anew in every pass over the data" in text
    assert "| method | setting | held-out loss |" in text
