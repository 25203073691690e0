"""``train.amp``: what runs in which precision, and that a stopped run goes on to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adperception.engine.trainer import Trainer

from toy_runs import Run, assert_equal_checkpoints, forget_after

FUSED = 'optimizer={"type": "AdamW", "lr": 0.01, "weight_decay": 0.01, "fused": True}'


@pytest.mark.parametrize(("amp", "dtype"), [("off", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_only_the_forward_pass_of_training_is_in_the_lower_precision(
    tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch, amp: str, dtype: str
) -> None:
    import toy

    seen: dict[str, set[str]] = {"training": set(), "evaluation": set(), "backward": set()}
    forward = toy.ToyModel.forward

    def watch(self: toy.ToyModel, batch: toy.ToyBatch, generator: torch.Generator | None = None) -> Any:
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        seen["training" if self.training else "evaluation"].add(str(product.dtype).removeprefix("torch."))
        losses = forward(self, batch, generator)
        if losses.total.requires_grad:
            losses.total.register_hook(lambda gradient: seen["backward"].add(str(torch.is_autocast_enabled("cpu"))))
        return losses

    monkeypatch.setattr(toy.ToyModel, "forward", watch)
    trainer = run_toy(tmp_path, f"train.amp={amp}", "train.epochs=1")
    assert seen == {"training": {dtype}, "evaluation": {"float32"}, "backward": {"False"}}
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


def test_the_results_are_close(tmp_path: Path, run_toy: Run) -> None:
    runs = {
        amp: run_toy(tmp_path / amp, f"train.amp={amp}", "model.batch_norm=False") for amp in ("off", "bf16", "fp16")
    }
    states = {amp: torch.cat([p.detach().flatten() for p in run.model.parameters()]) for amp, run in runs.items()}
    for amp, tolerance in (("bf16", 0.05), ("fp16", 0.03)):
        difference = (states[amp] - states["off"]).norm() / states["off"].norm()
        assert 0 < difference < tolerance, amp


def test_clipping_sees_the_unscaled_gradient(tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: dict[str, list[float]] = {}
    update = Trainer.update

    def watch(self: Trainer, outcome: Any) -> None:
        norms.setdefault(self.settings.train.amp, []).append(float(outcome.gradient_norm))
        update(self, outcome)

    monkeypatch.setattr(Trainer, "update", watch)
    for amp in ("off", "fp16"):
        run_toy(tmp_path / amp, f"train.amp={amp}", "train.steps=1", "train.epochs=None", "train.accumulate_steps=2")
    assert norms["fp16"] == pytest.approx(norms["off"], rel=1e-2)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_a_resumed_run_is_bit_equal(
    tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch, amp: str, every: int
) -> None:
    from adperception.engine.loss_scale import LossScale

    monkeypatch.setattr(LossScale, "GROWTH_INTERVAL", 4)  # the scale changes within the run, and the counter counts
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = (f"train.amp={amp}", FUSED, f"train.check_finite_every={every}")
    trainer = run_toy(whole, *options)
    assert trainer.check_finite_every == every
    for step in (5, 9):
        shutil.rmtree(stopped, ignore_errors=True)
        shutil.copytree(whole, stopped)
        forget_after(stopped, step)
        run_toy(stopped, *options, resume=True)
        for later in range(step + 1, 19):
            assert_equal_checkpoints(whole, stopped, later)
    saved = [load_file(whole / f"checkpoints/step_{step:08d}/optimizer.safetensors") for step in range(1, 19)]
    if amp == "fp16":  # with a growth every 4 steps it overflows now and then
        assert len({float(tensors["loss_scale/scale"]) for tensors in saved}) > 1
        assert trainer.progress.scaler_skips > 0
    else:
        assert not any(name.startswith("loss_scale/") for name in saved[0])


def test_a_run_may_change_its_precision_when_it_goes_on(tmp_path: Path, run_toy: Run) -> None:
    run_toy(tmp_path / "run", "train.amp=fp16")
    forget_after(tmp_path / "run", 9)
    trainer = run_toy(tmp_path / "run", "train.amp=off", resume=True, allow_config_change=True)
    assert trainer.loss_scale is None
    forget_after(tmp_path / "run", 12)
    trainer = run_toy(tmp_path / "run", "train.amp=fp16", resume=True, allow_config_change=True)
    assert trainer.loss_scale is not None
    assert 0 < int(trainer.loss_scale.steps_since_change) <= 6
    assert json.loads((tmp_path / "run/results.json").read_text())["amp"] == "fp16"
