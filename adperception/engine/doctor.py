"""Examine an installation: versions, devices, sparse backends, a self-test, a verdict.

This module imports neither torch nor any backend: everything native runs in child processes, so that even a torch
that crashes on import becomes a line of the report.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["Report", "SelfTest", "diagnose", "examine", "exit_text", "run_child"]

_REQUIRED = ("torch", "numpy", "h5py", "safetensors", "mmengine-lite", "opencv-python-headless", "matplotlib")
_GIB = 2**30
_SMALL_SHARED_MEMORY = 1 * _GIB
_FINGERPRINT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class KnownProblem:
    """A package version that is known to fail, with what is seen and what helps."""

    package: str
    version: str
    symptom: str
    fix: str


KNOWN_PROBLEMS = (
    KnownProblem(
        "spconv-cu120",
        "2.3.6",
        "reported to die with SIGFPE (floating-point exception) on recent GPUs",
        'pip uninstall -y spconv-cu120 cumm-cu120 && pip install "spconv-cu126>=2.3.8"',
    ),
)


@dataclass(frozen=True)
class SelfTest:
    """Outcome of the self-test of one backend on one device.

    Attributes:
        device: e.g. ``"cuda:0"``.
        backend: e.g. ``"spconv"``.
        problem: what went wrong, or ``None``.
        milliseconds: median of one forward and backward pass.
        slowdown: this time over that of the fastest working test.
        fingerprint: numbers made of all outputs and gradients.
    """

    device: str
    backend: str
    problem: str | None = None
    milliseconds: float | None = None
    slowdown: float | None = None
    fingerprint: tuple[float, ...] = ()


@dataclass
class Report:
    """Everything the doctor found.

    Attributes:
        table: name and value of each line.
        self_tests: one entry per device and backend.
        problems: what makes the installation unfit, each with its fix.
        advice: what works but could be better.
        verdict: one sentence.
    """

    table: dict[str, str] = field(default_factory=dict)
    self_tests: list[SelfTest] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    verdict: str = ""

    @property
    def healthy(self) -> bool:
        """Whether training will work with the defaults."""
        return not self.problems

    def to_json(self) -> str:
        """The report as JSON, indented."""
        return json.dumps({"healthy": self.healthy, **asdict(self)}, indent=2)

    def to_text(self) -> str:
        """The report as a table with the verdict in the last line."""
        rows = list(self.table.items())
        rows += [(f"self-test {test.device}, {test.backend}", _self_test_text(test)) for test in self.self_tests]
        width = max((len(name) for name, _ in rows), default=0)
        lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
        for heading, entries in (("problem", self.problems), ("advice", self.advice)):
            for entry in entries:
                lines += ["", f"{heading}: {entry}"]
        return "\n".join([*lines, "", f"verdict: {self.verdict}"])


def run_child(arguments: Sequence[str], timeout_s: float) -> tuple[dict[str, Any] | None, str]:
    """Run ``python -m adperception.engine.self_test ARGUMENTS`` and read the JSON object it prints.

    Returns:
        The object and ``""``, or ``None`` and why there is none: the signal by name, the last line of the error
        output, or the time limit.
    """
    command = [sys.executable, "-m", "adperception.engine.self_test", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return None, f"did not end within {timeout_s:g} s"
    if done.returncode != 0:
        return None, exit_text(done.returncode, done.stderr)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), ""
    except (IndexError, json.JSONDecodeError):
        return None, f"printed no result but {done.stdout[-200:]!r}"


def exit_text(code: int, error_output: str) -> str:
    """Why a process ended with ``code``: a signal's name and meaning, or the last line it wrote."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            return f"died with signal {-code}"
        # strsignal's wording differs between systems only in capitals.
        meaning = (signal.strsignal(-code) or "").split(":")[0].lower()
        return f"died with {name} ({meaning})"
    lines = [line.strip() for line in error_output.splitlines() if line.strip()]
    return f"failed: {lines[-1]}" if lines else f"ended with exit code {code}"


def diagnose(seconds: float = 1.0, timeout_s: float = 120.0, child: Callable[..., Any] = run_child) -> Report:
    """Examine this machine and this environment.

    Args:
        seconds: how long each self-test repeats its passes.
        timeout_s: limit of one child process.
        child: runs a child process; see :func:`run_child`.
    """
    facts, why = child([], timeout_s)
    tests: list[SelfTest] = []
    if facts is not None:
        for device in facts["devices"]:
            for backend in device["backends"]:
                options = ["--device", device["name"], "--backend", backend, "--seconds", str(seconds)]
                outcome, problem = child(options, timeout_s)
                tests.append(_self_test(device["name"], backend, outcome, problem))
    packages = {
        re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version
        for d in metadata.distributions()
        if d.metadata["Name"]
    }
    measured = _measured(tests, facts, child, timeout_s)
    return examine(facts, why, tests, packages, _nvidia_driver(), _machine(), measured)


def _measured(
    tests: Sequence[SelfTest], facts: dict[str, Any] | None, child: Callable[..., Any], timeout_s: float
) -> dict[str, dict[str, dict[str, float]]]:
    """Times of the backends that gave right results on each GPU where there are several, by device and precision."""
    right = [test for test in _compared(tests) if test.problem is None]
    measured = {}
    for device in facts["devices"] if facts else []:
        backends = [test.backend for test in right if test.device == device["name"]]
        # With one right backend left of several, too: older figures may still prefer another.
        if device["name"] != "cpu" and backends and len(device["backends"]) > 1:
            times, _ = child(["--device", device["name"], "--measure", *backends], timeout_s)
            if times is not None:
                measured[device["name"]] = times
    return measured


def examine(
    facts: dict[str, Any] | None,
    why_no_facts: str,
    tests: Sequence[SelfTest],
    packages: dict[str, str],
    nvidia_driver: str | None,
    machine: dict[str, Any],
    measured: dict[str, dict[str, dict[str, float]]] | None = None,
) -> Report:
    """Judge what was gathered; a pure function.

    Args:
        facts: see :func:`adperception.engine.self_test.torch_facts`, or ``None`` if torch could not be asked.
        why_no_facts: the reason in that case.
        tests: self-tests, without slowdowns.
        packages: installed distributions, name in lower case to version.
        nvidia_driver: version of the NVIDIA driver, or ``None`` without one.
        machine: ``system``, ``python``, ``cores``, ``memory``, ``shared_memory`` (bytes or ``None``).
        measured: milliseconds of a training pass by device, precision and backend.
    """
    report = Report()
    measured = measured or {}
    report.self_tests = _compared(tests)
    cuda_devices = [d for d in facts["devices"] if d["name"] != "cpu"] if facts else []
    spconv = {name: version for name, version in packages.items() if re.fullmatch(r"spconv(-cu\d+)?", name)}
    report.table = _table(facts, packages, spconv, nvidia_driver, machine)
    report.table |= _measurements(measured)

    if facts is None:
        report.problems.append(
            f"torch could not be used: it {why_no_facts}.\n  fix: pip install -c constraints.txt -e ."
        )
    missing = [name for name in _REQUIRED if name not in packages]
    if missing:
        report.problems.append(f"not installed: {', '.join(missing)}.\n  fix: pip install -c constraints.txt -e .")
    _judge_packages(report, spconv, cuda_devices, measured)
    _judge_self_tests(report, packages)
    if facts is not None and nvidia_driver and not cuda_devices:
        report.advice.append(
            f"NVIDIA driver {nvidia_driver} is there, but torch {facts['torch']} (CUDA {facts['cuda_of_torch']}) sees "
            "no GPU, so training would use the CPU. Install a torch build whose CUDA the driver supports "
            "(https://pytorch.org/get-started/locally), and check CUDA_VISIBLE_DEVICES."
        )
    shared = machine["shared_memory"]
    if shared is not None and shared < _SMALL_SHARED_MEMORY:
        report.advice.append(
            f"/dev/shm holds {shared / _GIB:.2f} GiB; data workers pass batches through it and die with SIGBUS when it "
            "is full. Start the container with --shm-size=8g, or train with train.workers=0."
        )
    report.verdict = _verdict(report, facts, cuda_devices, measured)
    return report


def _judge_packages(
    report: Report,
    spconv: dict[str, str],
    cuda_devices: Sequence[dict[str, Any]],
    measured: dict[str, dict[str, dict[str, float]]],
) -> None:
    for known in KNOWN_PROBLEMS:
        if spconv.get(known.package) == known.version:
            text = f"{known.package} {known.version} is {known.symptom}.\n  fix: {known.fix}"
            # A self-test that died says it with more weight; here it is a warning.
            report.advice.append(text)
    gpu_builds = sorted(name for name in spconv if name != "spconv")
    if "spconv" in spconv and gpu_builds:
        report.problems.append(
            f"the CPU-only package spconv {spconv['spconv']} shadows {gpu_builds[0]} {spconv[gpu_builds[0]]}: both "
            "install into the same folder.\n"
            f"  fix: pip uninstall -y spconv cumm && pip install --force-reinstall --no-deps {gpu_builds[0]}"
        )
    elif "spconv" in spconv and cuda_devices:
        report.problems.append(
            f"the installed spconv {spconv['spconv']} is the CPU-only package and cannot use the GPU.\n"
            '  fix: pip uninstall -y spconv cumm && pip install "adperception[gpu]"'
        )
    elif "spconv" in spconv:
        report.advice.append(
            f"spconv {spconv['spconv']} (CPU build) is installed and never used: with more than one thread its results "
            "are wrong. The torch backend runs on the CPU."
        )
    if len(gpu_builds) > 1:
        report.problems.append(
            f"{' and '.join(gpu_builds)} are both installed and overwrite each other.\n"
            f'  fix: pip uninstall -y {" ".join(gpu_builds)} && pip install "adperception[gpu]"'
        )
    if cuda_devices and not spconv and _fastest(measured, cuda_devices[0], "float32") == "torch":
        why = cuda_devices[0].get("no_triton")
        report.advice.append(
            "sparse convolutions run on the torch backend, same results but slower. For a fast one: "
            'pip install "adperception[gpu]"' + (f". The triton backend is not used: {why}." if why else "")
        )


def _judge_self_tests(report: Report, packages: dict[str, str]) -> None:
    for test in report.self_tests:
        if test.problem is None:
            continue
        version = _backend_version(test.backend, packages)
        lines = [f"sparse backend: {version}: self-test on {test.device} {test.problem}."]
        known = [k for k in KNOWN_PROBLEMS if test.backend == "spconv" and packages.get(k.package) == k.version]
        if known:
            lines[0] += " Known for this version."
            lines.append(f"  fix: {known[0].fix}")
            report.advice[:] = [entry for entry in report.advice if not entry.startswith(known[0].package)]
        elif test.backend == "triton":
            # Never chosen without a right result, so nothing is broken that would be used.
            report.advice.append("\n".join([*lines, "  It is not used; please report this with the output of --json."]))
            continue
        elif test.backend == "spconv":
            lines.append("  fix: pip uninstall -y " + " ".join(sorted(p for p in packages if _is_spconv(p))))
            lines[-1] += ' && pip install "adperception[gpu]"'
        else:
            lines.append("  fix: pip install --force-reinstall -c constraints.txt torch")
        twin = [t for t in report.self_tests if t.device == test.device and t.problem is None]
        if twin and twin[0].milliseconds is not None:
            lines.append(
                f"  until then: the {twin[0].backend} backend works here (same results; "
                f"{twin[0].milliseconds:.1f} ms per pass in this self-test); uninstalling the broken one selects it."
            )
        report.problems.append("\n".join(lines))


def _is_spconv(package: str) -> bool:
    return re.fullmatch(r"(spconv|cumm)(-cu\d+)?", package) is not None


def _backend_version(backend: str, packages: dict[str, str]) -> str:
    """The backend with the package that provides it, e.g. ``spconv (spconv-cu126 2.3.8)``."""
    providers = [
        f"{name} {version}" for name, version in sorted(packages.items()) if re.fullmatch(rf"{backend}(-cu\d+)?", name)
    ]
    return f"{backend} ({', '.join(providers)})" if providers else backend


def _self_test(device: str, backend: str, outcome: dict[str, Any] | None, problem: str) -> SelfTest:
    if outcome is None:
        return SelfTest(device, backend, problem=problem)
    return SelfTest(device, backend, milliseconds=outcome["milliseconds"], fingerprint=tuple(outcome["fingerprint"]))


def _compared(tests: Sequence[SelfTest]) -> list[SelfTest]:
    """The tests with slowdowns, and with a problem where a result differs from the CPU's torch backend."""
    reference = next((t.fingerprint for t in tests if (t.device, t.backend) == ("cpu", "torch")), ())
    fastest = min((t.milliseconds for t in tests if t.milliseconds is not None), default=None)
    compared = []
    for test in tests:
        problem, slowdown = test.problem, None
        if problem is None and test.milliseconds is not None and fastest is not None:
            slowdown = test.milliseconds / fastest
            difference = _largest_difference(test.fingerprint, reference) if reference else 0.0
            if not difference <= _FINGERPRINT_TOLERANCE:  # also for NaN
                problem = (
                    f"gave wrong results: {difference:.2g} away from the CPU's, tolerance {_FINGERPRINT_TOLERANCE:g}"
                )
        compared.append(SelfTest(test.device, test.backend, problem, test.milliseconds, slowdown, test.fingerprint))
    return compared


def _largest_difference(values: Sequence[float], reference: Sequence[float]) -> float:
    """Largest relative difference; NaN if any value is NaN."""
    differences = [abs(a - b) / max(abs(b), 1e-12) for a, b in zip(values, reference, strict=True)]
    return float("nan") if any(d != d for d in differences) else max(differences)


def _self_test_text(test: SelfTest) -> str:
    if test.problem is not None:
        return test.problem
    text = f"ok, {test.milliseconds:.1f} ms per forward and backward pass"
    if test.slowdown is not None and test.slowdown > 1:
        text += f", {test.slowdown:.1f}x slower than the fastest here"
    return text


def _table(
    facts: dict[str, Any] | None,
    packages: dict[str, str],
    spconv: dict[str, str],
    nvidia_driver: str | None,
    machine: dict[str, Any],
) -> dict[str, str]:
    table = {
        "adperception": packages.get("adperception", "not installed, run from its folder"),
        "python": machine["python"],
        "operating system": machine["system"],
        "torch": packages.get("torch", "not installed"),
        "CUDA of torch": (facts["cuda_of_torch"] or "none (CPU build)") if facts else "unknown",
        "NVIDIA driver": nvidia_driver or "none",
    }
    for device in facts["devices"] if facts else []:
        capability = f", compute capability {device['capability']}" if device["capability"] else ""
        table[f"device {device['name']}"] = device["title"] + capability
        table[f"sparse backends, {device['name']}"] = ", ".join(device["backends"])
    table["spconv packages"] = ", ".join(f"{name} {version}" for name, version in sorted(spconv.items())) or "none"
    for name in _REQUIRED[1:]:
        table[name] = packages.get(name, "not installed")
    threads = f"{facts['threads']} used by torch, " if facts else ""
    table["threads"] = (
        f"{threads}{machine['cores']} available, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    )
    for key, title in (("memory", "memory"), ("shared_memory", "/dev/shm")):
        table[title] = "unknown" if machine[key] is None else f"{machine[key] / _GIB:.1f} GiB"
    return table


def _fastest(measured: dict[str, dict[str, dict[str, float]]], device: dict[str, Any], precision: str) -> str:
    """What ``auto`` takes on ``device``: the fastest measured backend, else the one that it prefers unmeasured."""
    times = measured.get(device["name"], {}).get(precision)
    backends: list[str] = device["backends"]
    return min(times, key=times.__getitem__) if times else backends[0]


def _measurements(measured: dict[str, dict[str, dict[str, float]]]) -> dict[str, str]:
    rows = {}
    for device, precisions in measured.items():
        for precision, times in precisions.items():
            ordered = sorted(times.items(), key=lambda entry: entry[1])
            text = ", ".join(f"{backend} {milliseconds:.1f} ms" for backend, milliseconds in ordered)
            rows[f"sparse encoder, {device}, {precision}"] = f"{text} (auto takes the first)"
    return rows


def _verdict(
    report: Report,
    facts: dict[str, Any] | None,
    cuda_devices: Sequence[dict[str, Any]],
    measured: dict[str, dict[str, dict[str, float]]],
) -> str:
    if report.problems:
        count = len(report.problems)
        return f"not ready: {count} problem{'s' if count > 1 else ''} to fix first, see above."
    assert facts is not None  # otherwise a problem was reported
    device = cuda_devices[0] if cuda_devices else facts["devices"][0]
    where = device["title"] if cuda_devices else _cpu_text(facts["threads"])
    return f"ready: training runs on {where} with the sparse backend {_fastest(measured, device, 'float32')}."


def _cpu_text(threads: int) -> str:
    return f"the CPU ({threads} thread{'s' if threads != 1 else ''})"


def _machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shared = Path("/dev/shm")
    return {
        "system": platform.platform(),
        "python": f"{platform.python_version()} ({sys.executable})",
        "cores": cores,
        "memory": _memory(),
        "shared_memory": shutil.disk_usage(shared).total if shared.is_dir() else None,
    }


def _memory() -> int | None:
    """Bytes of memory of this machine or container, ``None`` where the system does not say."""
    limits = []
    names: Any = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    container = Path("/sys/fs/cgroup/memory.max")
    if container.is_file() and (text := container.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits, default=None)


def _nvidia_driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split() if done.returncode == 0 else []
    return lines[0] if lines else None
