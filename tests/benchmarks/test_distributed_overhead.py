from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def benchmark(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    yield importlib.import_module("distributed_overhead")
    torch.set_num_threads(threads)
    os.sched_setaffinity(0, cores)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no way to pin a thread here")
def test_figures_and_limit(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few turns say nothing about speed; memory and what is held against what are known."""
    path = tmp_path / "overhead.json"
    options = ["--cases", "digits", "--strategies", "DiLoCo", "LSGD", "--turns-scale", "0.01", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["distributed_overhead.py", *options])
    for limit, code in ((100.0, 0), (-100.0, 1)):
        monkeypatch.setattr(benchmark, "LIMIT", limit)
        assert benchmark.main() == code
        assert ("LIMIT BROKEN: LSGD on digits CNN" in capsys.readouterr().out) == bool(code)
    diloco, lsgd = json.loads(path.read_text())["figures"]
    assert (diloco["step_work"], round(diloco["state"], 2), round(diloco["scratch"], 2)) == (False, 2, 1)
    assert (lsgd["step_work"], round(lsgd["state"], 2), round(lsgd["scratch"], 2)) == (True, 1, 1)
    assert abs(lsgd["over_training"]) < abs(lsgd["over_step"])
