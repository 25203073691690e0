"""What the GPU benchmarks share: describing the machine, timing in turns, memory, ceilings, verdicts, JSON.

Everything works on a CPU too, for trying a script out; a verdict then says that it says nothing. Nothing here changes
a GPU's settings: clocks are read, never set.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

import adperception
from adperception.engine.memory import peak_memory

__all__ = [
    "Deadline",
    "Report",
    "Timings",
    "Verdict",
    "add_options",
    "build_and_weigh",
    "ceilings",
    "clocks",
    "describe_device",
    "free_memory",
    "ratio",
    "time_in_turns",
    "versions",
]

Run = TypeVar("Run", bound=Callable[[], object])
Context = Callable[[], contextlib.AbstractContextManager[Any]]

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "tf32x3": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""Precisions by name. Products of ``tf32`` may be rounded to TF32; ``tf32x3`` adds three products of TF32 parts."""


def add_options(parser: argparse.ArgumentParser, turns: int) -> None:
    """The options that all these scripts have."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="tiny sizes: only to see that the script runs")
    parser.add_argument("--turns", type=int, default=turns, help="how often every case runs; medians are over turns")
    parser.add_argument("--seconds", type=float, default=600.0, help="begin no further case after this many seconds")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")


class Deadline:
    """A number of seconds from now on.

    Args:
        seconds: how many.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, negative once it is over."""
        return self._end - time.monotonic()


@dataclass(frozen=True)
class Verdict:
    """One figure against what it has to reach.

    Attributes:
        point: of the list of what has to be reached (docs/gpu_benchmarks.md).
        claim: in words.
        value: what was measured; ``None``: it was not.
        limit: what it has to reach.
        at_least: whether it must be ``limit`` or more, else ``limit`` or less.
        counts: ``False`` for small runs and CPUs, which prove nothing.
    """

    point: int
    claim: str
    value: float | None
    limit: float
    at_least: bool = True
    counts: bool = True

    @property
    def status(self) -> str:
        """``"PASS"``, ``"FAIL"``, ``"not measured"``, or ``"not judged"`` where it does not count."""
        if self.value is None:
            return "not measured"
        if not self.counts:
            return "not judged"
        reached = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "PASS" if reached else "FAIL"

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.3g}"
        sense = "at least" if self.at_least else "at most"
        return f"point {self.point}: {self.claim}: {value} ({sense} {self.limit:g}): {self.status}"


@dataclass
class Report:
    """Everything that a script has found, as it goes into its JSON file.

    Attributes:
        benchmark: name of the script.
        device: the device measured on.
        small: whether sizes were tiny.
        path: of the JSON file; ``None``: none is written. What is known so far is there at any time.
        rows: one mapping per line of its table.
        verdicts: figures against limits.
        left_out: what was not measured, and why.
        notes: what the reader should know.
        extra: further figures by name.
    """

    benchmark: str
    device: torch.device
    small: bool
    path: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._clocks = [clocks(self.device)]
        self._description, self._versions = describe_device(self.device), versions()
        self._start = time.monotonic()

    @property
    def counts(self) -> bool:
        """Whether verdicts mean anything: full sizes on a GPU."""
        return self.device.type == "cuda" and not self.small

    def add(self, row: dict[str, Any]) -> None:
        """Add a line."""
        self.rows.append(row)
        self._write(finished=False)

    def judge(self, point: int, claim: str, value: float | None, limit: float, *, at_least: bool = True) -> None:
        """Add a verdict."""
        self.verdicts.append(Verdict(point, claim, value, limit, at_least, self.counts))
        self._write(finished=False)

    def leave_out(self, what: str, why: object) -> None:
        """Note, and say, that something is not measured."""
        self.left_out.append(f"{what}: {why}")
        print(f"left out: {what}: {why}", flush=True)

    def finish(self) -> None:
        """Print notes and verdicts; the file is whole."""
        for note in self.notes:
            print(note)
        for verdict in self.verdicts:
            print(verdict)
        self._clocks.append(clocks(self.device))
        self._write(finished=True)

    def _write(self, finished: bool) -> None:
        if self.path is None:
            return
        content = {
            "benchmark": self.benchmark,
            "finished": finished,
            "small": self.small,
            "seconds": round(time.monotonic() - self._start, 1),
            "device": self._description,
            "clocks": self._clocks,
            "versions": self._versions,
            "rows": self.rows,
            "verdicts": [{**asdict(verdict), "status": verdict.status} for verdict in self.verdicts],
            "left_out": self.left_out,
            "notes": self.notes,
            **self.extra,
        }
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.path)


def describe_device(device: torch.device) -> dict[str, Any]:
    """What was measured on."""
    if device.type != "cuda":
        return {"name": _cpu_name(), "kind": "cpu", "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    settings = _query(("driver_version", "power.limit"), device)
    return {
        "name": properties.name,
        "kind": "cuda",
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": round(getattr(properties, "L2_cache_size", 0) / 2**20, 1),
        "driver": settings["driver_version"],
        "power_limit": settings["power.limit"],
        "cpu": _cpu_name(),
        "cpu_cores": os.cpu_count(),
    }


def clocks(device: torch.device) -> dict[str, str]:
    """Clocks and temperature now; empty on a CPU. Benchmarks print them and never set them."""
    if device.type != "cuda":
        return {}
    return _query(("clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "temperature.gpu"), device)


def versions() -> dict[str, str]:
    """Of everything that decides about speed."""
    found = {
        "python": platform.python_version(),
        "adperception": adperception.__version__,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }
    for name in ("triton", "spconv-cu126", "spconv-cu120", "spconv", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _query(names: Sequence[str], device: torch.device) -> dict[str, str]:
    """Values of nvidia-smi by name, each ``"unknown"`` without it."""
    unknown = dict.fromkeys(names, "unknown")
    program = shutil.which("nvidia-smi")
    if program is None:
        return unknown
    # By the GPU's own name: nvidia-smi does not know CUDA_VISIBLE_DEVICES.
    gpu = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = [program, f"--query-gpu={','.join(names)}", "--format=csv,noheader", "-i", gpu]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return unknown
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(names, values, strict=True)) if done.returncode == 0 and len(values) == len(names) else unknown


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


@dataclass
class Timings:
    """Seconds per call.

    Attributes:
        seconds: case to one figure per turn.
        failures: case to the error that it ended with.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, case: str) -> float | None:
        """Median over the turns; ``None`` for a case that failed or was not run."""
        return statistics.median(self.seconds[case]) if self.seconds.get(case) else None

    def ratio(self, slow: str, fast: str) -> float | None:
        """How many times longer ``slow`` takes, the median of the ratios of each turn."""
        return ratio(self.seconds.get(slow, []), self.seconds.get(fast, []))

    def summary(self, case: str, scale: float = 1e3) -> dict[str, float]:
        """Median and spread, in milliseconds by default."""
        values = self.seconds[case]
        return {
            "median": scale * statistics.median(values),
            "min": scale * min(values),
            "max": scale * max(values),
        }


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float | None:
    """Median over the turns of slow / fast; ``None`` if either is missing."""
    pairs = list(zip(slow, fast, strict=False))
    return statistics.median(a / b for a, b in pairs) if pairs else None


def time_in_turns(
    cases: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    turns: int,
    calls: int,
    warm_up: int = 3,
    flush: bool = False,
    wall: bool = False,
    deadline: Deadline | None = None,
    contexts: Mapping[str, Context] | None = None,
) -> Timings:
    """Time cases that take turns, so that a change of the device's speed hits all of them.

    A case that raises is dropped, and its error kept.

    Args:
        cases: what to call, by name.
        device: where the work is done.
        turns: how often each case comes up.
        calls: timed calls per turn; a turn's figure is their median, or their mean with ``wall``.
        warm_up: calls that are not counted, before everything else.
        flush: overwrite the GPU's second-level cache before every call.
        wall: the time of the whole turn by the clock on the wall, between two synchronisations, so that calls overlap
            as in a training loop; otherwise CUDA events around every call (on a CPU the clock).
        contexts: what to enter around a case's calls, by name; entering it is not timed.
        deadline: no further turn begins after it, but each case gets one.
    """
    timings, contexts = Timings(), contexts or {}
    scratch = _cache_filler(device) if flush else None
    for name, run in cases.items():
        try:
            with contexts.get(name, contextlib.nullcontext)():
                for _ in range(warm_up):
                    run()
            _synchronise(device)
            timings.seconds[name] = []
        except Exception as error:
            timings.failures[name] = _first_line(error)
            free_memory(device)
    for turn in range(turns):
        if turn and deadline is not None and deadline.left < 0:
            break
        for name in list(timings.seconds):
            try:
                time_once = _time_by_wall if wall else _time_calls
                with contexts.get(name, contextlib.nullcontext)():
                    timings.seconds[name].append(time_once(cases[name], device, calls, scratch))
            except Exception as error:
                timings.failures[name] = _first_line(error)
                del timings.seconds[name]
    return timings


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cache_filler(device: torch.device) -> torch.Tensor | None:
    if device.type != "cuda":
        return None
    size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or 64 * 2**20
    return torch.empty(2 * size, dtype=torch.uint8, device=device)


def _time_by_wall(run: Callable[[], object], device: torch.device, calls: int, _: torch.Tensor | None) -> float:
    _synchronise(device)
    start = time.perf_counter()
    for _call in range(calls):
        run()
    _synchronise(device)
    return (time.perf_counter() - start) / calls


def _time_calls(run: Callable[[], object], device: torch.device, calls: int, scratch: torch.Tensor | None) -> float:
    if device.type != "cuda":
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)
    events: list[tuple[Any, Any]] = [tuple(_event() for _ in range(2)) for _ in range(calls)]
    for start_event, end_event in events:
        if scratch is not None:
            scratch.zero_()
        start_event.record()
        run()
        end_event.record()
    torch.cuda.synchronize(device)
    return statistics.median(1e-3 * float(start.elapsed_time(end)) for start, end in events)


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def free_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def build_and_weigh(make: Callable[[], Run], device: torch.device, calls: int = 2) -> tuple[Run, float | None]:
    """Build a case and call it a few times.

    Args:
        make: builds it.
        device: where it works.
        calls: how often it is called.

    Returns:
        The case, and the peak MiB that it adds on the GPU: its weights, its state, and what a call needs. On a CPU,
        where a process's peak never falls, ``None``, and nothing is called.
    """
    if device.type != "cuda":
        return make(), None
    free_memory(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run = make()
    for _ in range(calls):
        run()
    torch.cuda.synchronize(device)
    return run, peak_memory(device)["peak_gpu_memory_mib"] - before / 2**20


def ceilings(device: torch.device, *, small: bool = False) -> dict[str, float]:
    """Measured roofs: bytes per second of a copy (read and written), operations per second of a matrix product."""
    size = 2**24 if small else 2**30
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    cases: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(source)}
    edge = 256 if small else 8192
    measured = [name for name in DTYPES if name != "tf32x3"]
    for name in measured:
        matrix = torch.randn(edge, edge, device=device).to(DTYPES[name])
        cases[name] = _product(matrix, tf32=name == "tf32")
    timings = time_in_turns(cases, device, turns=3, calls=3)
    found = {"copy_bytes_per_second": 2 * size / (timings.median("copy") or float("inf"))}
    for name in measured:
        seconds = timings.median(name)
        if seconds is not None:
            found[f"{name}_operations_per_second"] = 2 * edge**3 / seconds
    found["tf32x3_operations_per_second"] = found["tf32_operations_per_second"] / 3
    return found


def _product(matrix: torch.Tensor, *, tf32: bool) -> Callable[[], object]:
    def run() -> object:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            return matrix @ matrix
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    return run


if __name__ == "__main__":
    chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps({**describe_device(chosen), **clocks(chosen), **versions()}, indent=1))
    print(json.dumps(ceilings(chosen, small=chosen.type == "cpu"), indent=1))
    sys.exit(0)
