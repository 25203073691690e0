"""``tools/train.py`` as a person at a terminal meets it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adperception.sparse.backends import NAMES

from toy_runs import TOY, Run, assert_equal_checkpoints, checkpoint_steps


def start(*arguments: str, tool: Path = TOY) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(tool), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_misspelt_key_is_reported_fast(toy_config: Path, repository: Path) -> None:
    toy_config.write_text(toy_config.read_text().replace("batch_size", "batchsize"), encoding="utf-8")
    process = start(str(toy_config), tool=repository / "tools/train.py")
    began = time.perf_counter()
    first = process.stdout.readline() if process.stdout else ""
    seconds = time.perf_counter() - began
    _, err = process.communicate(timeout=60)
    assert first == f"{toy_config} -> work_dirs/toy\n"
    assert seconds < 5
    assert process.returncode == 1
    assert err == (
        f'error: {toy_config}:7  "batchsize" is not an option of train. Did you mean "batch_size"? Available: '
        "batch_size, epochs, steps, accumulate_steps, workers, clip_grad_norm, drop_last, on_non_finite, "
        "evaluate_first, batch_norm_statistics, amp, check_finite_every, compile, prefetch_factor.\n"
    )


def test_unknown_sparse_backend(toy_config: Path, tmp_path: Path) -> None:
    process = start(str(toy_config), "--work-dir", str(tmp_path / "run"), "--sparse-backend", "tourch")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith(f'error: sparse backend "tourch" is unknown. Available: {", ".join(NAMES)}.')


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_signal_finishes_the_step_and_saves(
    toy_config: Path, tmp_path: Path, run_toy: Run, number: signal.Signals, whole_group: bool
) -> None:
    work_dir = tmp_path / "run"
    slow = ["train_dataset.delay_seconds=0.03", "checkpoint.every_steps=1000", "train.workers=2"]
    process = start(str(toy_config), "--work-dir", str(work_dir), "--cfg-options", *slow)
    deadline = time.monotonic() + 60
    while '"train"' not in (work_dir / "log.jsonl").read_text() if (work_dir / "log.jsonl").exists() else True:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # Ctrl-C in a terminal reaches the data workers as well.
    (os.killpg if whole_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    match = re.search(rf"stopped by {number.name} after step (\d+) of 18; go on with --resume", out)
    assert match is not None, out + err
    step = int(match[1])
    assert checkpoint_steps(work_dir)[-1] == step < 18
    run_toy(work_dir, resume=True, allow_config_change=True)
    run_toy(tmp_path / "whole")
    assert_equal_checkpoints(tmp_path / "whole", work_dir, 18)


def test_print_config_shows_the_resolved_values(repository: Path, tmp_path: Path) -> None:
    config = sorted((repository / "configs").rglob("*.py"))[0]
    tool = repository / "tools/print_config.py"
    process = start(str(config), "--cfg-options", "seed=7", tool=tool)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "\nseed = 7\n" in out
    printed = tmp_path / "printed.py"
    printed.write_text(out, encoding="utf-8")
    again = start(str(printed), tool=tool)
    assert again.communicate(timeout=60)[0] == out.split("\n", 1)[1]


def test_torchrun_starts_it(toy_config: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(TOY)]
    options = ["--work-dir", str(tmp_path / "run"), "--device", "cpu", "--cfg-options", "train.epochs=1"]
    done = subprocess.run(
        [*command, str(toy_config), *options], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "3 steps of 8 frames (4 per pass x 1 passes x 2 processes)" in done.stdout
    assert (tmp_path / "run/checkpoints/step_00000003/rank_00001.safetensors").is_file()
