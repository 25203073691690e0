"""Several runs of toy workers, one after the other in the same processes: a launch for each would take too long.

``python toy_workers_runs.py WORKER COUNT JSON``; the JSON is a list of runs with ``config``, ``work_dir``, ``port`` and
options of ``RunOptions``. Each prints ``RESULT {...}``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import distributed as dist

Run = Mapping[str, Any]


def launch_workers(count: int, runs: Sequence[Run], timeout: float = 110.0) -> list[list[dict[str, Any]]]:
    """Carry out the runs with so many workers, each run at a store of its own; the results by run and worker."""
    stores = [dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in runs]
    told = json.dumps([{**run, "port": store.port} for run, store in zip(runs, stores, strict=True)])
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(worker), str(count), told],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for worker in range(count)
    ]
    found = []
    for process in started:
        out, err = process.communicate(timeout=timeout)
        results = [json.loads(line.removeprefix("RESULT ")) for line in out.splitlines() if line.startswith("RESULT ")]
        assert len(results) == len(runs), out[-2000:] + err[-4000:]
        found.append(results)
    return [list(each) for each in zip(*found, strict=True)]


def _run(worker: int, count: int, run: Run) -> dict[str, Any]:
    from adperception.config import load_config
    from adperception.engine.run import RunOptions, train
    from adperception.engine.workers import StoreAddress

    import toy  # noqa: F401  registers the toy model

    options = {key: value for key, value in run.items() if key not in ("config", "work_dir", "port")}
    address = StoreAddress("127.0.0.1", run["port"], worker, count)
    chosen = RunOptions(Path(run["work_dir"]), device="cpu", address=address, **options)
    try:
        trainer = train(load_config(Path(run["config"])), chosen)
    except (ValueError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    assert trainer.sync is not None
    sync = trainer.sync.optimizer
    return {"step": trainer.progress.step, "rounds": sync.worker.rounds, "members": list(sync.members), "error": ""}


def main() -> None:
    worker, count, runs = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    for run in runs:
        print("RESULT " + json.dumps(_run(worker, count, run)), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
