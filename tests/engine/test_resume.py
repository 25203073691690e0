from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from adperception.checkpoint.layout import CheckpointError

from toy_runs import Run, assert_equal_checkpoints, checkpoint_steps, forget_after, launch


@pytest.fixture(scope="module")
def cache() -> dict[str, Path]:
    return {}


@pytest.fixture
def uninterrupted(cache: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, run_toy: Run) -> Path:
    """A run of 18 steps with a checkpoint after each, made once."""
    if "run" not in cache:
        cache["run"] = tmp_path_factory.mktemp("run") / "whole"
        run_toy(cache["run"])
    return cache["run"]


# Steps per epoch: 6. Inside an epoch, right before and at its end, and after the first step.
@pytest.mark.parametrize(("step", "workers"), [(1, 0), (4, 2), (5, 0), (6, 0), (11, 2), (17, 0)])
def test_resumed_run_is_bit_equal(uninterrupted: Path, tmp_path: Path, run_toy: Run, step: int, workers: int) -> None:
    work_dir = tmp_path / "stopped"
    shutil.copytree(uninterrupted, work_dir)
    forget_after(work_dir, step)
    torch.manual_seed(12345)  # whatever the process did before must not matter
    trainer = run_toy(work_dir, f"train.workers={workers}", resume=True)
    assert trainer.progress.step == 18
    for later in range(step + 1, 19):
        assert_equal_checkpoints(uninterrupted, work_dir, later)


def test_resumed_log_has_every_step_once(uninterrupted: Path, tmp_path: Path, run_toy: Run) -> None:
    work_dir = tmp_path / "stopped"
    shutil.copytree(uninterrupted, work_dir)
    forget_after(work_dir, 9)
    with (work_dir / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "st')  # a kill in the middle of a line
    run_toy(work_dir, resume=True)
    steps = [[json.loads(line)["step"] for line in (d / "log.jsonl").open()] for d in (uninterrupted, work_dir)]
    assert steps[0] == steps[1]


def test_best_value_survives(uninterrupted: Path, tmp_path: Path, run_toy: Run) -> None:
    work_dir = tmp_path / "stopped"
    shutil.copytree(uninterrupted, work_dir)
    forget_after(work_dir, 13)
    before = json.loads((work_dir / "checkpoints/step_00000013/state.json").read_text())["progress"]
    assert before["best_step"] in (6, 12)
    trainer = run_toy(work_dir, "train.evaluate_first=False", resume=True)
    whole = json.loads((uninterrupted / "checkpoints/step_00000018/state.json").read_text())["progress"]
    assert (trainer.progress.best_step, trainer.progress.best_value) == (whole["best_step"], whole["best_value"])


def test_no_checkpoint_is_an_error(tmp_path: Path, run_toy: Run) -> None:
    with pytest.raises(CheckpointError, match=r"no complete checkpoint in .*nothing.checkpoints"):
        run_toy(tmp_path / "nothing", resume=True)


def test_truncated_checkpoint_is_named_and_skipped(
    uninterrupted: Path, tmp_path: Path, run_toy: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    work_dir = tmp_path / "stopped"
    shutil.copytree(uninterrupted, work_dir)
    forget_after(work_dir, 8)
    damaged = work_dir / "checkpoints/step_00000008/model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    state = work_dir / "checkpoints/step_00000007/state.json"
    state.write_text(state.read_text()[:100])
    run_toy(work_dir, resume=True)
    printed = capsys.readouterr().out
    assert f"skipping an incomplete checkpoint: {damaged}" in printed
    assert f"skipping an incomplete checkpoint: {state}" in printed
    assert "step_00000006: step 6 of 18" in printed
    assert_equal_checkpoints(uninterrupted, work_dir, 18)


def test_changed_config_is_refused_with_its_keys(uninterrupted: Path, tmp_path: Path, run_toy: Run) -> None:
    work_dir = tmp_path / "stopped"
    shutil.copytree(uninterrupted, work_dir)
    forget_after(work_dir, 4)
    changes = ("optimizer.lr=0.02", "model.width=9", "log.every_steps=5")
    with pytest.raises(CheckpointError, match=r"model.width: 8 -> 9; optimizer.lr: 0.01 -> 0.02\. .*--allow-config"):
        run_toy(work_dir, *changes, resume=True)
    trainer = run_toy(work_dir, "optimizer.lr=0.02", resume=True, allow_config_change=True)
    assert trainer.progress.step == 18


def test_checkpoint_that_does_not_fit_the_model(uninterrupted: Path, tmp_path: Path, run_toy: Run) -> None:
    work_dir = tmp_path / "stopped"
    shutil.copytree(uninterrupted, work_dir)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        run_toy(work_dir, "model.width=9", resume=True, allow_config_change=True)


def test_another_batch_size_keeps_the_place_in_the_epoch(
    uninterrupted: Path, tmp_path: Path, run_toy: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    work_dir = tmp_path / "stopped"
    shutil.copytree(uninterrupted, work_dir)
    forget_after(work_dir, 8)  # epoch 1, 8 of its 22 frames seen
    run_toy(work_dir, "train.batch_size=2", resume=True, allow_config_change=True)
    printed = capsys.readouterr().out
    assert "effective batch: 4 -> 2" in printed
    assert "optimizer.lr=0.005" in printed
    assert "step 15 of 33" in printed  # 11 steps per epoch now: 1 epoch and 4 steps of 2 frames


def test_another_thread_count_warns(
    uninterrupted: Path, tmp_path: Path, run_toy: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    work_dir = tmp_path / "stopped"
    shutil.copytree(uninterrupted, work_dir)
    forget_after(work_dir, 17)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        run_toy(work_dir, resume=True)
    finally:
        torch.set_num_threads(threads)
    assert (
        f"written by 1 processes with {threads} threads each; this run has 1 with {threads + 1}"
        in capsys.readouterr().out
    )


def test_a_second_run_keeps_the_first(uninterrupted: Path, tmp_path: Path, run_toy: Run) -> None:
    work_dir = tmp_path / "again"
    shutil.copytree(uninterrupted, work_dir)
    run_toy(work_dir, "train.epochs=1")
    assert checkpoint_steps(work_dir) == list(range(1, 7))
    assert checkpoint_steps(work_dir / "previous_1") == list(range(1, 19))


@pytest.mark.multi_process
def test_three_processes_resume_bit_equal(toy_config: Path, tmp_path: Path) -> None:
    # From three on, sums would depend on how DDP packs gradients into buckets, which changes after its first step.
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = ["--cfg-options", "model.width=64", "train_dataset.frames=24", "train.batch_size=2", "train.epochs=2"]
    for result in launch(3, [str(toy_config), "--work-dir", str(whole), *options]):
        assert result.returncode == 0, result.stderr
    shutil.copytree(whole, stopped)
    forget_after(stopped, 2)
    for result in launch(3, [str(toy_config), "--work-dir", str(stopped), "--resume", *options]):
        assert result.returncode == 0, result.stderr
    for step in (3, 8):
        assert_equal_checkpoints(whole, stopped, step)


@pytest.mark.multi_process
def test_two_processes_resume_bit_equal(toy_config: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for result in launch(2, [str(toy_config), "--work-dir", str(whole)]):
        assert result.returncode == 0, result.stderr
    assert checkpoint_steps(whole) == list(range(1, 10))  # 3 steps of 8 frames per epoch
    shutil.copytree(whole, stopped)
    forget_after(stopped, 4)
    arguments = [str(toy_config), "--work-dir", str(stopped), "--resume", "--cfg-options", "train.workers=1"]
    results = launch(2, arguments)
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    assert "step 4 of 9" in results[0].stdout
    assert results[1].stdout == ""  # one process talks
    for step in range(5, 10):
        assert_equal_checkpoints(whole, stopped, step)
    forget_after(stopped, 4)
    (alone,) = launch(1, [str(toy_config), "--work-dir", str(stopped), "--resume"])
    assert alone.returncode == 0, alone.stderr
    assert "written by 2 processes" in alone.stdout
    assert "effective batch: 8 -> 4 frames per step. Learning-rate rule" in alone.stdout


def test_kill_between_writing_and_renaming(uninterrupted: Path, toy_config: Path, tmp_path: Path, run_toy: Run) -> None:
    work_dir = tmp_path / "killed"
    (result,) = launch(1, [str(toy_config), "--work-dir", str(work_dir)], TOY_KILL="5")
    assert result.returncode == -9
    assert checkpoint_steps(work_dir) == [1, 2, 3, 4]
    assert (work_dir / "checkpoints/.step_00000005.tmp").is_dir()
    run_toy(work_dir, resume=True)
    assert_equal_checkpoints(uninterrupted, work_dir, 18)
    assert not list((work_dir / "checkpoints").glob(".*"))


def test_full_disk_keeps_the_last_good_checkpoint(
    uninterrupted: Path, tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_dir = tmp_path / "full"
    monkeypatch.setenv("TOY_FULL", ".step_00000004.tmp/optimizer")
    import toy

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", toy.disk_full)
        with pytest.raises(CheckpointError, match=r"step 4 .*no space left .*last good checkpoint is .*step_00000003"):
            run_toy(work_dir)
    assert checkpoint_steps(work_dir) == [1, 2, 3]
    assert not list((work_dir / "checkpoints").glob(".*"))
    run_toy(work_dir, resume=True)
    assert_equal_checkpoints(uninterrupted, work_dir, 18)
