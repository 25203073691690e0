"""Both ways to live with failing workers, under torch's own launcher: ``docs/failures.md``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import toy
from toy_runs import TOY, checkpoint_steps, launch

pytestmark = [pytest.mark.multi_process, pytest.mark.timeout(600)]

TIMEOUT = 8.0  # longer than a worker needs to start writing logs on a busy machine
PATIENCE = 250.0
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@pytest.fixture
def config(tmp_path: Path) -> str:
    """16 steps, a round every 2, a checkpoint every 3."""
    text = toy.CONFIG.replace("epochs=3", "steps=16").replace("every_epochs=1", "every_epochs=9")
    text = text.replace("every_steps=1, keep=30", "every_steps=3, keep=30")
    distributed = f'distributed = dict(type="LSGD", sync_every_steps=2, round_timeout_seconds={TIMEOUT})\n'
    path = tmp_path / "config.py"
    path.write_text(text + distributed, encoding="utf-8")
    return str(path)


def state(work_dir: Path, step: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work_dir / f"checkpoints/step_{step:08d}/state.json").read_text())
    return found


def log_steps(work_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (work_dir / "log.jsonl").open() if '"train"' in line]


def test_a_group_is_restarted_from_its_last_checkpoint(config: str, tmp_path: Path) -> None:
    """One agent for all workers: worker 1 is killed once, all begin again, and end with the bits of a quiet run."""
    options = ["--device", "cpu", "--work-dir"]
    group = [*TORCHRUN, "--standalone", "--nproc-per-node=2", "--max-restarts=1", str(TOY), config, *options]
    killed = subprocess.run(
        [*group, str(tmp_path / "killed")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOY_KILL_STEP": "1:11"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert killed.returncode == 0, killed.stderr
    assert re.search(r"resumed from \S+step_00000009: step 9 of 16", killed.stdout), killed.stdout
    quiet = launch(2, [config, *options, str(tmp_path / "quiet")], timeout=PATIENCE)
    assert [done.returncode for done in quiet] == [0, 0], quiet[0].stderr
    assert "resumed" not in quiet[0].stdout
    for name in ("model.safetensors", "rank_00000.safetensors", "rank_00001.safetensors"):
        one, two = (load_file(tmp_path / d / "checkpoints/step_00000016" / name) for d in ("killed", "quiet"))
        assert one.keys() == two.keys()
        assert not [key for key in one if not torch.equal(one[key], two[key]) and not key.startswith("random/")], name
    assert log_steps(tmp_path / "killed") == log_steps(tmp_path / "quiet")


class Agents:
    """One torchrun agent per worker, and the store in a process of its own.

    Args:
        repository: root of the checkout.
        arguments: of the training tool.
        faults: environment variables by worker.
        agents: whether torchrun starts the workers; otherwise they are started as they are.
    """

    def __init__(
        self, repository: Path, arguments: Sequence[str], faults: dict[int, dict[str, str]], *, agents: bool = True
    ) -> None:
        store = [sys.executable, str(repository / "tools/store.py"), "--port", "0", "--host", "127.0.0.1"]
        self._store = subprocess.Popen(store, stdout=subprocess.PIPE, text=True)
        assert self._store.stdout is not None
        port = int(re.search(r":(\d+)\.", self._store.stdout.readline())[1])  # type: ignore[index]
        agent = [*TORCHRUN, "--standalone", "--nproc-per-node=1", "--max-restarts=0"] if agents else [sys.executable]
        self.ended: dict[int, float] = {}
        self.workers_ended: dict[int, float] = {}
        self.processes = [
            subprocess.Popen(
                [*agent, str(TOY), *arguments, "--store", f"127.0.0.1:{port}", "--worker", f"{worker}/3"],
                env={**os.environ, "OMP_NUM_THREADS": "1", **faults.get(worker, {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for worker in range(3)
        ]

    def wait(self, timeout: float = PATIENCE) -> list[tuple[int, str]]:
        """Exit codes and outputs."""
        watching = [threading.Thread(target=self._watch, args=each, daemon=True) for each in enumerate(self.processes)]
        for thread in watching:
            thread.start()
        results = []
        try:
            for process in self.processes:
                out, _ = process.communicate(timeout=timeout)
                results.append((process.returncode, out))
        finally:
            self._store.kill()
            for process in self.processes:
                process.kill()
        for thread in watching:
            thread.join(5)
        return results

    def _watch(self, worker: int, process: subprocess.Popen[str]) -> None:
        """When the agent ends, and when the last process below it did."""
        child = 0
        while process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            child = child or next(iter(int(c) for c in children), 0)
            if child and not Path(f"/proc/{child}").exists():
                self.workers_ended.setdefault(worker, time.monotonic())
            time.sleep(0.05)
        self.ended[worker] = time.monotonic()


def test_survivors_train_on_under_an_agent_each(config: str, tmp_path: Path, repository: Path) -> None:
    """Worker 1 is late once, which is mentioned; then worker 0, which writes the files, is killed during a save."""
    arguments = [config, "--device", "cpu", "--work-dir", str(tmp_path / "run")]
    faults = {0: {"TOY_KILL": "3"}, 1: {"TOY_SLOW": f"1:3:{0.6 * TIMEOUT}"}}
    agents = Agents(repository, arguments, faults)
    results = agents.wait()
    assert [code for code, _ in results[1:]] == [0, 0], results
    assert results[0][0] != 0
    assert "waiting for worker 1 in round" in results[2][1]
    for _, out in results[1:]:
        assert re.search(r"warning: round \d+: going on without worker 0", out), out
    for step, workers in ((6, [0, 1, 2]), (9, [1, 2]), (16, [1, 2])):
        assert state(tmp_path / "run", step)["workers"] == workers
    assert checkpoint_steps(tmp_path / "run") == [3, 6, 9, 12, 15, 16]
    assert not list((tmp_path / "run/checkpoints").glob(".*"))
    assert log_steps(tmp_path / "run")[-1] == 16
    assert (tmp_path / "run/weights.safetensors").is_file()
    for worker in (1, 2):
        assert agents.ended[worker] - agents.workers_ended.get(worker, agents.ended[worker]) < 30


def test_survivors_of_a_kill_between_rounds(config: str, tmp_path: Path, repository: Path) -> None:
    """And from what they leave behind, they can start again, or any number of workers from the consensus."""
    work_dir = tmp_path / "run"
    arguments = [config, "--device", "cpu", "--work-dir", str(work_dir)]
    results = Agents(repository, arguments, {2: {"TOY_KILL_STEP": "2:7"}}, agents=False).wait()
    assert [code for code, _ in results] == [0, 0, -9], results
    assert state(work_dir, 16)["workers"] == [0, 1]
    first, second = (load_file(work_dir / f"checkpoints/step_00000016/rank_0000{w}.safetensors") for w in (0, 1))
    assert torch.equal(first["strategy/state/leader"], second["strategy/state/leader"])
    assert all(torch.isfinite(value).all() for value in first.values())
    last = [json.loads(line) for line in (work_dir / "log.jsonl").open()][-1]
    assert last["workers"] == 2
