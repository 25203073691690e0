"""A signal to one of two workers that train apart ends the run of both after the same round, with a checkpoint."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toy_runs import TOY, checkpoint_steps


@pytest.mark.multi_process
@pytest.mark.timeout(400)
def test_all_stop_after_the_round_in_which_they_hear_of_it(toy_config: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / "run"
    options = [
        "train.epochs=None",
        "train.steps=400",
        "train_dataset.delay_seconds=0.02",
        "checkpoint.every_steps=1000",
    ]
    options += ["distributed.type=LSGD", "distributed.sync_every_steps=7", "log.every_steps=1", "evaluations=[]"]
    command = [sys.executable, str(TOY), str(toy_config), "--work-dir", str(work_dir), "--device", "cpu"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    workers = [
        subprocess.Popen(
            [*command, "--cfg-options", *options],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    log = work_dir / "log.jsonl"
    deadline = time.monotonic() + 200
    try:
        while not (log.is_file() and '"train"' in log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        workers[0].send_signal(signal.SIGTERM)
        ended = [worker.communicate(timeout=150) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [128 + signal.SIGTERM] * 2, ended
    out = ended[0][0]
    assert "LSGD: 2 workers train apart; a round after every 7 steps of each" in out
    assert "SIGTERM received; all workers stop after the next round" in out
    found = re.search(r"stopped by SIGTERM after step (\d+) of 400; go on with --resume", out)
    assert found is not None, out
    assert int(found[1]) % 7 == 0
    assert checkpoint_steps(work_dir) == [int(found[1])]
