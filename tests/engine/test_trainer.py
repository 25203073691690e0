from __future__ import annotations

from pathlib import Path

import pytest
import torch

from toy_runs import Run

# Without batch norm and dropout the mean loss over a big batch is the mean over its parts.
PLAIN = ("model.batch_norm=False", "model.dropout=0.0", "train.evaluate_first=False")


def parameters(trainer: object) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])  # type: ignore[attr-defined]


def test_accumulation_equals_the_big_batch(tmp_path: Path, run_toy: Run) -> None:
    # 22 frames: the last step of an epoch has 6 frames, in passes of 4 and 2.
    big = run_toy(tmp_path / "big", *PLAIN, "train.batch_size=8", "train.accumulate_steps=1")
    small = run_toy(tmp_path / "small", *PLAIN, "train.batch_size=4", "train.accumulate_steps=2")
    assert big.total_steps == small.total_steps == 9
    torch.testing.assert_close(parameters(small), parameters(big), rtol=1e-5, atol=1e-6)
    other = run_toy(tmp_path / "other", *PLAIN, "train.batch_size=4", "train.accumulate_steps=1")
    assert not torch.allclose(parameters(other), parameters(big), rtol=1e-3, atol=1e-3)


def test_workers_do_not_change_the_run(tmp_path: Path, run_toy: Run) -> None:
    one = run_toy(tmp_path / "one", "train.workers=0", "train.epochs=1")
    two = run_toy(tmp_path / "two", "train.workers=2", "train.epochs=1")
    assert torch.equal(parameters(one), parameters(two))


def test_seed_changes_the_run_and_repeats_it(tmp_path: Path, run_toy: Run) -> None:
    runs = [run_toy(tmp_path / str(n), f"seed={seed}", "train.epochs=1") for n, seed in enumerate((1, 1, 2))]
    assert torch.equal(parameters(runs[0]), parameters(runs[1]))
    assert not torch.equal(parameters(runs[0]), parameters(runs[2]))


def test_clipping_limits_the_update(tmp_path: Path, run_toy: Run) -> None:
    sgd = 'optimizer={"type": "SGD", "lr": 1.0}'
    schedule = 'schedule={"type": "Constant"}'
    before = run_toy(tmp_path / "zero", *PLAIN, sgd.replace("1.0", "0.0"), schedule, "train.epochs=1")
    after = run_toy(
        tmp_path / "clip", *PLAIN, sgd, schedule, "train={'steps': 1, 'batch_size': 4, 'clip_grad_norm': 0.01}"
    )
    moved = [
        (a - b).detach().flatten()
        for (name, a), b in zip(after.model.named_parameters(), before.model.parameters(), strict=True)
        if name.startswith("online")
    ]
    assert float(torch.cat(moved).norm()) == pytest.approx(0.01, rel=1e-3)


def test_steps_instead_of_epochs_cross_epoch_borders(tmp_path: Path, run_toy: Run) -> None:
    trainer = run_toy(tmp_path / "steps", 'train={"steps": 8, "batch_size": 4}')
    assert (trainer.progress.step, trainer.epochs_done, trainer.total_steps) == (8, 1, 8)


def test_model_is_told_about_every_step(tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import toy

    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(
        toy.ToyModel, "after_optimizer_step", lambda self, step, total, applied: calls.append((step, total))
    )
    run_toy(tmp_path / "run", "train.epochs=1")
    assert calls == [(step, 6) for step in range(6)]


def test_decay_is_decoupled_and_reaches_every_parameter(tmp_path: Path) -> None:
    from adperception.engine.optimizers import build_optimizer

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = build_optimizer({"type": "AdamW", "lr": 0.1, "weight_decay": 0.5}, model)
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.allclose(parameter, old * (1 - 0.1 * 0.5))


class OnGpu(torch.nn.Parameter):
    """A parameter that says it is on a GPU."""

    is_cuda = property(lambda self: True)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("options", "fused"),
    [({}, True), ({"fused": False}, False), ({"foreach": True}, None), ({"type": "SGD", "momentum": 0.9}, True)],
)
def test_fused_is_the_default_on_a_gpu(options: dict[str, object], fused: bool | None) -> None:
    from adperception.engine.optimizers import build_optimizer, can_mask_steps

    model = torch.nn.Module()
    model.weight = OnGpu(torch.ones(2))
    config = {"type": "AdamW", "lr": 0.1, **options}
    optimizer = build_optimizer(config, model)
    assert optimizer.param_groups[0]["fused"] is fused
    assert can_mask_steps(optimizer) is bool(fused)
    plain = torch.nn.Linear(2, 2)
    assert not build_optimizer({"type": "AdamW", "lr": 0.1}, plain).param_groups[0]["fused"]
