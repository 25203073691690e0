"""Non-finite flags that stay on the device: what the host learns late must never have been applied."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adperception.engine.hooks.non_finite_guard import NonFiniteError
from adperception.engine.host_reads import HostReads
from adperception.engine.trainer import Trainer

from toy_runs import Run, assert_equal_checkpoints, checkpoint_steps, launch

BAD = ("train_dataset.bad_frame=13", "train.evaluate_first=False")
RARE = ("checkpoint.every_steps=100", "checkpoint.every_epochs=3", "log.every_steps=100")
ADAMW = 'optimizer={"type": "AdamW", "lr": 0.01, "weight_decay": 0.01, "fused": True}'
SGD = 'optimizer={"type": "SGD", "lr": 0.01, "momentum": 0.9, "fused": True}'


@pytest.mark.parametrize("optimizer", [ADAMW, SGD, ADAMW.replace("AdamW", "Adam")])
def test_a_masked_step_is_a_skipped_step(tmp_path: Path, run_toy: Run, optimizer: str) -> None:
    """Parameters, moments, step counters, the moving average and batch-norm statistics, to the bit."""
    runs = {}
    for every in (1, 5):
        options = (*BAD, *RARE, optimizer, "train.on_non_finite=skip", f"train.check_finite_every={every}")
        runs[every] = run_toy(tmp_path / str(every), *options, "checkpoint.every_epochs=1")
        assert runs[every].check_finite_every == every
    assert runs[1].progress.skipped_steps == runs[5].progress.skipped_steps == 3
    for step in (6, 12, 18):
        assert_equal_checkpoints(tmp_path / "1", tmp_path / "5", step)
    # And means in the log, which leave out the skipped steps.
    lines = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("1", "5")]
    for one, five in zip(*lines, strict=True):
        assert {k: v for k, v in one.items() if "seconds" not in k and "memory" not in k} == {
            k: v for k, v in five.items() if "seconds" not in k and "memory" not in k
        }


def test_no_checkpoint_holds_a_bad_update(tmp_path: Path, run_toy: Run) -> None:
    run_toy(tmp_path, *BAD, ADAMW, "train.on_non_finite=skip", "train.check_finite_every=7")
    for step in checkpoint_steps(tmp_path):
        tensors = load_file(tmp_path / f"checkpoints/step_{step:08d}/model.safetensors")
        assert all(torch.isfinite(value).all() for value in tensors.values())


def test_stopping_names_the_step_and_its_frames(tmp_path: Path, run_toy: Run) -> None:
    messages, batches = [], []
    for every in (1, 100):
        work_dir = tmp_path / str(every)
        with pytest.raises(NonFiniteError) as caught:
            run_toy(work_dir, *BAD, *RARE, ADAMW, f"train.check_finite_every={every}", "seed=9")
        message = str(caught.value)
        match = re.search(r"batch written to (.+)\)\. The parameters were not changed", message)
        assert match is not None, message
        batches.append(load_file(match[1]))
        messages.append(message.replace(str(work_dir), ""))
    assert messages[0] == messages[1]
    assert not messages[0].startswith("step 1:")  # the first step never waits
    torch.testing.assert_close(batches[0], batches[1], rtol=0, atol=0, equal_nan=True)


def test_stopping_names_the_parameter_if_only_its_gradient_is_bad(
    tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_gradient(monkeypatch, lambda step: step == 3)
    with pytest.raises(NonFiniteError, match=r'step 4: process 0: the gradient of "online.3.weight" is not finite th'):
        run_toy(tmp_path, "train.evaluate_first=False", *RARE, ADAMW, "train.check_finite_every=100")


def poison_gradient(monkeypatch: pytest.MonkeyPatch, when: Any, factor: float = float("inf")) -> None:
    """Multiply a gradient of the toy model in the steps that ``when`` picks."""
    import toy

    forward, steps = toy.ToyModel.forward, iter(range(1000))

    def poisoned(self: toy.ToyModel, batch: toy.ToyBatch, generator: torch.Generator | None = None) -> object:
        losses = forward(self, batch, generator)
        if self.training and when(next(steps)):
            handle = self.online[3].weight.register_hook(lambda gradient: (handle.remove(), gradient * factor)[1])
        return losses

    monkeypatch.setattr(toy.ToyModel, "forward", poisoned)


def test_the_loss_scale_skips_and_counts(tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An overflow leaves out the step and halves the scale; neither guard nor loss take notice."""
    runs = []
    for every in (1, 5):
        with monkeypatch.context() as patch:
            poison_gradient(patch, lambda step: step in (0, 4, 5, 11))
            options = ("train.evaluate_first=False", *RARE, ADAMW, "train.amp=fp16", "seed=5")
            runs.append(run_toy(tmp_path / str(every), *options, f"train.check_finite_every={every}"))
    for trainer in runs:
        assert (trainer.progress.scaler_skips, trainer.progress.skipped_steps) == (4, 0)
        assert trainer.loss_scale is not None
        assert float(trainer.loss_scale.scale) == 65536 / 2**4
        assert int(trainer.loss_scale.steps_since_change) == 6
    assert_equal_checkpoints(tmp_path / "1", tmp_path / "5", 18)
    last = json.loads((tmp_path / "5/log.jsonl").read_text().splitlines()[-2])
    assert (last["scaler_skips"], last["loss_scale"], last["skipped_steps"]) == (4, 4096.0, 0)
    results = json.loads((tmp_path / "5/results.json").read_text())
    assert (results["amp"], results["scaler_skips"], results["check_finite_every"]) == ("fp16", 4, 5)


def test_a_bad_loss_stops_with_a_loss_scale_as_well(tmp_path: Path, run_toy: Run) -> None:
    with pytest.raises(NonFiniteError, match='loss term "squared" is nan for frames'):
        run_toy(tmp_path, *BAD, "train.amp=fp16")


def test_gradients_that_always_overflow_end_the_run(
    tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_gradient(monkeypatch, lambda step: True)
    with pytest.raises(
        NonFiniteError, match=r"although the loss scale is down to .*, after 34 steps without an update"
    ):
        run_toy(tmp_path, "train.evaluate_first=False", "train.amp=fp16", "train.epochs=9")


def test_an_optimizer_that_cannot_is_checked_in_every_step(
    tmp_path: Path, run_toy: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = run_toy(tmp_path, "train.check_finite_every=5", "train.epochs=1")
    assert trainer.check_finite_every == 1
    assert "AdamW cannot leave out an update by itself, so every step is checked" in capsys.readouterr().out


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_step_reads_nothing(tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch, amp: str) -> None:
    """The trainer's own part: schedule, clipping, update, moving average, guard, log, progress, loss scale."""
    compute, counted = Trainer.compute, []

    def watch(self: Trainer, *arguments: Any) -> Any:
        if self.progress.step == 3:
            reads.clear()
        if self.progress.step == 18:
            counted.append(list(reads.places))
        return compute(self, *arguments)

    monkeypatch.setattr(Trainer, "compute", watch)
    options = (*RARE, ADAMW, "train.check_finite_every=20", f"train.amp={amp}", "train_dataset.frames=80")
    with HostReads(cuda=False) as reads:
        run_toy(tmp_path, *options, "train.epochs=1")
    assert counted == [[]]
    assert any("_read" in place for place in reads.places)  # the end is read


@pytest.mark.multi_process
def test_processes_agree_on_the_device(toy_config: Path, tmp_path: Path) -> None:
    text = toy_config.read_text(encoding="utf-8").replace("eps=1e-8", "eps=1e-8, fused=True")
    toy_config.write_text(text, encoding="utf-8")
    options = [*BAD, "train.on_non_finite=skip", "train.check_finite_every=4", "checkpoint.every_steps=100"]
    results = launch(2, [str(toy_config), "--work-dir", str(tmp_path / "skip"), "--cfg-options", *options])
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    assert "Skipped (3 skipped so far)" in results[0].stdout
    tensors = load_file(tmp_path / "skip/checkpoints/step_00000009/model.safetensors")
    assert all(torch.isfinite(value).all() for value in tensors.values())
    options = [*BAD, "train.check_finite_every=4"]
    results = launch(2, [str(toy_config), "--work-dir", str(tmp_path / "stop"), "--cfg-options", *options])
    messages = [re.findall(r"^error: .*$", result.stderr, re.MULTILINE) for result in results]
    assert messages[0] == messages[1]
    assert re.search(r'process [01]: loss term "squared" is nan for frames [\d, ]*000013', messages[0][0])
    assert len(re.findall("process [01]:", messages[0][0])) == 1
