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


def log(work_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work_dir / "log.jsonl").open() if '"train"' in line]


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
    steps = [[line["step"] for line in log(tmp_path / name)] for name in ("killed", "quiet")]
    assert steps[0] == steps[1]


class Agents:
    """One torchrun agent per worker, and the store in a process of its own.

    Args:
        repository: root of the checkout.
        arguments: of the training tool.
        faults: environment variables by worker.
        agents: whether torchrun starts the workers; otherwise they are started as they are.

    Attributes:
        processes: by worker.
        ended: Unix times of their ends.
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

        def watch(worker: int) -> None:
            self.processes[worker].wait()
            self.ended[worker] = time.time()

        watching = [threading.Thread(target=watch, args=(worker,), daemon=True) for worker in range(3)]
        for thread in watching:
            thread.start()
        try:
            results = []
            for process in self.processes:
                out, _ = process.communicate(timeout=timeout)
                results.append((process.returncode, out))
        finally:
            for process in (self._store, *self.processes):
                process.kill()
        for thread in watching:
            thread.join()
        return results


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
    assert [(line["step"], line["workers"]) for line in log(tmp_path / "run")][-1] == (16, 2)
    assert (tmp_path / "run/weights.safetensors").is_file()
    last = (tmp_path / "run/panels/training_curves.png").stat().st_mtime
    assert all(0 < agents.ended[worker] - last < 30 for worker in (1, 2))


def test_the_last_worker_trains_on_alone(config: str, tmp_path: Path, repository: Path) -> None:
    """Without launchers. Worker 2 is killed between two rounds; then worker 1 is too late, and is told so."""
    work_dir = tmp_path / "run"
    arguments = [config, "--device", "cpu", "--work-dir", str(work_dir)]
    faults = {2: {"TOY_KILL_STEP": "2:7"}, 1: {"TOY_SLOW": f"1:11:{1.4 * TIMEOUT}"}}
    results = Agents(repository, arguments, faults, agents=False).wait()
    assert [code for code, _ in results] == [0, 1, -9], results
    assert re.search(r"\nerror: worker 1 came to round \d+ \d\.\d s after the others had gone on", results[1][1])
    assert "Traceback" not in results[1][1]
    assert [line["workers"] for line in log(work_dir) if line["step"] > 1] == [3, 3, 3, 2, 2, 1, 1, 1]
    assert [state(work_dir, step)["workers"] for step in (6, 9, 12)] == [[0, 1, 2], [0, 1], [0]]
    own = load_file(work_dir / "checkpoints/step_00000016/rank_00000.safetensors")
    assert all(torch.isfinite(value).all() for value in own.values())
