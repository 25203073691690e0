"""Everything that has to be measured on a GPU, in one command that ends in time.

    python benchmarks/gpu.py --minutes 8 --out gpu_benchmarks

The GPU tests, then the block sizes of the Triton kernels, then the benchmarks, what matters most first. Each runs in a
process of its own with a limit; one that exceeds it is ended, and what it had measured by then is kept. ``--out`` gets
a JSON file and a log of each, ``report.md`` with all verdicts and tables, and ``summary.json``. Exit code: 0 if every
verdict is a pass, 1 otherwise.

``--device cpu --small`` goes through all of it with tiny sizes, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_timing import Deadline

__all__ = ["Job", "Outcome", "make_jobs", "run_job", "write_report"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Job:
    """One process.

    Attributes:
        name: of its log and JSON file.
        command: what to run.
        seconds: at most, of a budget of 8 minutes; other budgets scale it.
        writes_json: whether it takes ``--seconds`` and ``--json``.
    """

    name: str
    command: Sequence[str]
    seconds: float
    writes_json: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        name: of the job.
        state: ``"done"``, ``"failed (exit code 1)"``, ``"ended after 90 s"`` or ``"not begun"``.
        seconds: that it took.
        content: of its JSON file; ``None`` without one.
    """

    name: str
    state: str
    seconds: float
    content: dict[str, Any] | None = None


def main() -> int:
    """Parse the command line, run all jobs, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="the whole may take")
    parser.add_argument(
        "--out", type=Path, default=Path("gpu_benchmarks"), help="folder for everything that is written"
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="tiny sizes: only to see that everything runs")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    deadline = Deadline(60 * arguments.minutes)
    outcomes = []
    for job in make_jobs(arguments.device, arguments.small):
        print(f"\n=== {job.name}", flush=True)
        outcomes.append(run_job(job, out, scale=arguments.minutes / 8, deadline=deadline))
        print(f"=== {job.name}: {outcomes[-1].state}, {outcomes[-1].seconds:.0f} s", flush=True)
    verdicts = write_report(out, outcomes)
    print(f"\n{out / 'report.md'}")
    for verdict in verdicts:
        print(f"{verdict['status']}: {verdict['claim']}")
    return 0 if verdicts and all(verdict["status"] == "PASS" for verdict in verdicts) else 1


def make_jobs(device: str, small: bool) -> list[Job]:
    """What is run, in this order."""
    options = ["--device", device, *(["--small", "--turns", "1"] if small else [])]

    def script(name: str, seconds: float, *more: str, called: str = "") -> Job:
        command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *options, *more]
        return Job(called or name, command, seconds)

    first = [str(ROOT / "tests" / name) for name in ("sparse", "models")]
    tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *first, str(ROOT / "tests")]
    jobs = [Job("gpu_tests", tests, 90, writes_json=False)]
    if device == "cuda":
        tune = [sys.executable, str(ROOT / "tools" / "tune_sparse.py"), "--minutes", "0.7", "--batch-size", "16"]
        jobs.append(Job("tune_sparse", tune, 70, writes_json=False))
    return [
        *jobs,
        script("pretrain_step", 90),
        script("sparse_conv", 120),
        script("train_step", 70, "--models", "SECOND"),
        script("radar_step", 60),
        script("train_step", 60, "--models", "CenterPoint", called="train_step_centerpoint"),
    ]


def run_job(job: Job, out: Path, scale: float, deadline: Deadline) -> Outcome:
    """Run a job within its limit, and within what is left of the whole; its output goes to a log and is shown after."""
    limit = min(job.seconds * scale, deadline.left)
    if limit < 5:
        return Outcome(job.name, "not begun", 0.0)
    command, path = list(job.command), out / f"{job.name}.json"
    path.unlink(missing_ok=True)
    if job.writes_json:
        # Cases that have begun, and the writing of figures, need time after the last one begins.
        command += ["--seconds", f"{0.6 * limit:.0f}", "--json", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    log = out / f"{job.name}.log"
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=limit)
            state = "done" if code == 0 else f"failed (exit code {code})"
        except subprocess.TimeoutExpired:
            _end(process)
            state = f"ended after {limit:.0f} s"
        except BaseException:
            _end(process)
            raise
    print("\n".join(_shown(log.read_text(encoding="utf-8", errors="replace"))), flush=True)
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return Outcome(job.name, state, time.monotonic() - start, content)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a job and the processes that it has started (data workers): its own group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue


def _shown(log: str) -> list[str]:
    """The lines of a log without progress bars, which overwrite themselves."""
    return [line for line in log.splitlines() if "frame/s]" not in line]


def write_report(out: Path, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Write ``report.md`` and ``summary.json``; returns all verdicts, by point."""
    contents = [outcome.content for outcome in outcomes if outcome.content is not None]
    found = [_verdict_of_tests(out, outcome) for outcome in outcomes if outcome.name == "gpu_tests"]
    found += [verdict for content in contents for verdict in content["verdicts"]]
    verdicts = sorted(found, key=lambda verdict: verdict["point"])
    lines = ["# GPU benchmarks", ""]
    if contents:
        device, versions = contents[0]["device"], contents[0]["versions"]
        lines += [
            ", ".join(f"{key} {value}" for key, value in device.items()),
            "",
            ", ".join(f"{key} {value}" for key, value in versions.items()),
            "",
        ]
        if contents[0]["small"] or device["kind"] != "cuda":
            lines += ["**Small sizes or a CPU: no figure below says anything about a GPU.**", ""]
    lines += ["| job | state | seconds |", "|---|---|---|"]
    lines += [f"| {o.name} | {o.state} | {o.seconds:.0f} |" for o in outcomes]
    lines += ["", "| point | what | measured | has to be | verdict |", "|---|---|---|---|---|"]
    for verdict in verdicts:
        value = "-" if verdict["value"] is None else f"{verdict['value']:.3g}"
        sense = "at least" if verdict["at_least"] else "at most"
        claim, limit, status = verdict["claim"], verdict["limit"], verdict["status"]
        lines.append(f"| {verdict['point']} | {claim} | {value} | {sense} {limit:g} | {status} |")
    for outcome in outcomes:
        log = out / f"{outcome.name}.log"
        if not log.is_file():
            continue
        if outcome.content is not None:
            clocks = outcome.content["clocks"]
            lines += ["", f"## {outcome.name}", "", f"Clocks before and after: {clocks}", ""]
        else:
            lines += ["", f"## {outcome.name}", ""]
        lines += ["```text", *_shown(log.read_text(encoding="utf-8", errors="replace")), "```"]
    (out / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = {
        "jobs": [{"name": o.name, "state": o.state, "seconds": round(o.seconds, 1)} for o in outcomes],
        "verdicts": verdicts,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return verdicts


def _verdict_of_tests(out: Path, outcome: Outcome) -> dict[str, Any]:
    """The golden files and layers on the GPU: passed, failed, or not run to the end (or skipped without a GPU)."""
    log = (out / f"{outcome.name}.log").read_text(encoding="utf-8") if outcome.seconds else ""
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|error)", log)}
    bad = counts.get("failed", 0) + counts.get("error", 0)
    status = "not measured"
    if bad or outcome.state.startswith("failed"):
        status = "FAIL"
    elif outcome.state == "done" and counts.get("passed"):
        status = "PASS"
    claim = f"pytest -m gpu: failed of {counts.get('passed', 0) + bad} tests that ran"
    value = float(bad) if counts else None
    return {"point": 1, "claim": claim, "value": value, "limit": 0, "at_least": False, "status": status}


if __name__ == "__main__":
    sys.exit(main())
