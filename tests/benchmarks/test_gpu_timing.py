"""Verdicts, turns and files of the GPU benchmarks."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

CPU = torch.device("cpu")


@pytest.fixture
def gpu_timing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("gpu_timing")


@pytest.mark.parametrize(
    ("value", "at_least", "counts", "status"),
    [
        (1.3, True, True, "PASS"),
        (1.29, True, True, "FAIL"),
        (1.3, False, True, "PASS"),
        (1.31, False, True, "FAIL"),
        (float("nan"), True, True, "FAIL"),
        (float("nan"), False, True, "FAIL"),
        (None, True, True, "not measured"),
        (9.0, True, False, "not judged"),
    ],
)
def test_verdicts(gpu_timing: ModuleType, value: float | None, at_least: bool, counts: bool, status: str) -> None:
    verdict = gpu_timing.Verdict(2, "a ratio", value, 1.3, at_least, counts)
    assert verdict.status == status
    assert str(verdict).endswith(f"({'at least' if at_least else 'at most'} 1.3): {status}")


def test_ratios_are_taken_turn_by_turn(gpu_timing: ModuleType) -> None:
    """A machine that becomes twice as slow in the second turn changes no ratio."""
    timings = gpu_timing.Timings({"slow": [3.0, 6.0, 30.0], "fast": [1.0, 2.0, 5.0]}, {})
    assert timings.ratio("slow", "fast") == 3.0
    assert timings.ratio("slow", "absent") is None
    assert timings.median("slow") == 6.0
    assert timings.median("absent") is None
    assert timings.summary("fast") == {"median": 2000.0, "min": 1000.0, "max": 5000.0}


def test_cases_take_turns_and_a_failure_stays_alone(gpu_timing: ModuleType) -> None:
    calls: list[str] = []

    def fail_later() -> None:
        calls.append("c")
        if calls.count("c") == 3:
            raise RuntimeError("out of memory\nand more")

    def fail() -> None:
        raise ValueError("no such kernel")

    cases = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b"), "c": fail_later, "d": fail}
    timings = gpu_timing.time_in_turns(cases, CPU, turns=2, calls=2, warm_up=1)
    assert calls == [*"abc", *"aabbcc", *"aabb"]
    assert {name: len(seconds) for name, seconds in timings.seconds.items()} == {"a": 2, "b": 2}
    assert timings.failures == {"c": "RuntimeError: out of memory", "d": "ValueError: no such kernel"}


@pytest.mark.parametrize("wall", [True, False])
def test_seconds_are_per_call(gpu_timing: ModuleType, wall: bool) -> None:
    timings = gpu_timing.time_in_turns({"nap": lambda: time.sleep(0.02)}, CPU, turns=2, calls=3, warm_up=0, wall=wall)
    assert all(0.02 <= seconds < 0.06 for seconds in timings.seconds["nap"])


def test_after_the_deadline_every_case_has_one_turn(gpu_timing: ModuleType) -> None:
    timings = gpu_timing.time_in_turns(
        {"a": lambda: None, "b": lambda: None}, CPU, turns=5, calls=1, deadline=gpu_timing.Deadline(-1)
    )
    assert [len(seconds) for seconds in timings.seconds.values()] == [1, 1]


def test_the_file_is_there_before_the_end(gpu_timing: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    report = gpu_timing.Report("name", CPU, False, path)
    report.add({"case": "a"})
    early = json.loads(path.read_text())
    assert (early["finished"], early["rows"]) == (False, [{"case": "a"}])
    report.judge(1, "claim", 0.5, 1.0, at_least=False)
    report.finish()
    content = json.loads(path.read_text())
    assert content["finished"]
    # On a CPU nothing counts, at whatever size.
    assert [verdict["status"] for verdict in content["verdicts"]] == ["not judged"]
    assert content["versions"]["torch"] == torch.__version__


def test_ceilings_of_a_cpu(gpu_timing: ModuleType) -> None:
    roofs = gpu_timing.ceilings(CPU, small=True)
    assert set(roofs) == {
        "copy_bytes_per_second",
        *(f"{name}_operations_per_second" for name in ("float32", "tf32", "tf32x3", "bf16", "fp16")),
    }
    assert all(1e6 < value < 1e15 for value in roofs.values())


def test_nvidia_smi_is_asked_once_and_may_be_missing(
    gpu_timing: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$@" >> "$0.calls"\necho "1980 MHz, 60"\n')
    program.chmod(0o755)
    properties = type("Properties", (), {"uuid": "abc"})()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    names, device = ("clocks.sm", "temperature.gpu"), torch.device("cuda", 0)
    assert gpu_timing._query(names, device) == {"clocks.sm": "1980 MHz", "temperature.gpu": "60"}
    calls = Path(f"{program}.calls").read_text().splitlines()
    assert calls == ["--query-gpu=clocks.sm,temperature.gpu --format=csv,noheader -i GPU-abc"]
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_timing._query(names, device) == dict.fromkeys(names, "unknown")
