from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adperception.engine.doctor import SelfTest, diagnose, examine, exit_text, run_child

REQUIRED = dict.fromkeys(
    ("torch", "numpy", "h5py", "safetensors", "mmengine-lite", "opencv-python-headless", "matplotlib"), "1.0"
)
MACHINE = {"system": "Linux", "python": "3.11", "cores": 8, "memory": 2**34, "shared_memory": 2**33}
CPU = {"name": "cpu", "title": "x86_64", "capability": None, "backends": ["torch"]}
GPU = {"name": "cuda:0", "title": "NVIDIA H200, 139 GiB", "capability": "9.0", "backends": ["spconv", "torch"]}
CPU_TEST = SelfTest("cpu", "torch", milliseconds=90.0, fingerprint=(1.0, 2.0))


def facts(*devices: dict) -> dict:
    return {"torch": "2.13.0", "cuda_of_torch": "12.6", "threads": 4, "devices": list(devices)}


def report(tests, packages=None, devices=(CPU, GPU), driver="550.1", **machine):
    return examine(facts(*devices), "", tests, REQUIRED | (packages or {}), driver, MACHINE | machine)


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return str(path)


def test_this_machine_passes():
    result = diagnose(seconds=0.05)
    assert result.healthy, result.problems
    tested = {(test.device, test.backend): test for test in result.self_tests}
    assert tested["cpu", "torch"].milliseconds > 0
    assert result.verdict.startswith("ready: training runs on")
    assert set(json.loads(result.to_json())) >= {"healthy", "table", "self_tests", "problems", "advice", "verdict"}
    assert result.to_text().splitlines()[-1] == f"verdict: {result.verdict}"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a POSIX matter")
@pytest.mark.parametrize("name", ["SIGFPE", "SIGSEGV"])
def test_native_crash_becomes_a_line(monkeypatch, tmp_path, name):
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, f"kill -{name[3:]} $$"))
    result, why = run_child([], timeout_s=10)
    assert result is None
    assert why.startswith(f"died with {name} (")


def test_hang_and_exception_and_silence_become_lines(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, "exec sleep 20"))
    assert run_child([], timeout_s=0.2) == (None, "did not end within 0.2 s")
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, "echo trace >&2; echo 'ImportError: x' >&2; exit 1"))
    assert run_child([], timeout_s=10) == (None, "failed: ImportError: x")
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, "echo hello"))
    assert run_child([], timeout_s=10) == (None, "printed no result but 'hello\\n'")
    assert exit_text(-250, "") == "died with signal 250"
    assert exit_text(3, "") == "ended with exit code 3"


def test_doctor_itself_imports_nothing_native():
    code = "import sys, adperception.engine.doctor; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_healthy_gpu_with_the_slowdown_just_measured():
    tests = [
        CPU_TEST,
        SelfTest("cuda:0", "spconv", milliseconds=5.0, fingerprint=(1.0, 2.0001)),
        SelfTest("cuda:0", "torch", milliseconds=15.0, fingerprint=(1.0, 2.0)),
    ]
    result = report(tests, {"spconv-cu126": "2.3.8"})
    assert result.healthy
    assert [test.slowdown for test in result.self_tests] == [18.0, 1.0, 3.0]
    assert "self-test cuda:0, torch" in result.to_text()
    assert "15.0 ms per forward and backward pass, 3.0x slower than the fastest here" in result.to_text()
    assert result.table["device cuda:0"] == "NVIDIA H200, 139 GiB, compute capability 9.0"
    assert result.verdict == "ready: training runs on NVIDIA H200, 139 GiB with the sparse backend spconv."


def test_the_backends_with_right_results_are_measured_and_the_fastest_is_named():
    device = {**GPU, "backends": ["spconv", "torch", "triton"], "no_triton": ""}
    asked = []

    def child(arguments, timeout_s):
        asked.append(arguments)
        if not arguments:
            facts = {"torch": "2.13", "cuda_of_torch": "13", "threads": 2, "devices": [CPU, device]}
            return facts, ""
        if "--measure" in arguments:
            return {"float32": {"spconv": 8.0, "triton": 6.0}, "bfloat16": {"spconv": 8.0, "triton": 3.0}}, ""
        wrong = "torch" in arguments and "cuda:0" in arguments
        return {"milliseconds": 5.0, "fingerprint": [1.0, 3.0 if wrong else 2.0]}, ""

    result = diagnose(child=child)
    assert asked[-1] == ["--device", "cuda:0", "--measure", "spconv", "triton"]
    assert result.table["sparse encoder, cuda:0, float32"] == "triton 6.0 ms, spconv 8.0 ms (auto takes the first)"
    assert result.table["sparse encoder, cuda:0, bfloat16"].startswith("triton 3.0 ms, ")


def test_triton_with_wrong_results_is_left_alone():
    """It is never chosen without right results, so the installation is fit."""
    device = {**GPU, "backends": ["torch", "triton"], "no_triton": ""}
    tests = [
        CPU_TEST,
        SelfTest("cuda:0", "torch", milliseconds=15.0, fingerprint=(1.0, 2.0)),
        SelfTest("cuda:0", "triton", problem="gave wrong results: 0.5 away from the CPU's, tolerance 0.001"),
    ]
    result = report(tests, {"triton": "3.7.1"}, devices=(CPU, device))
    assert result.healthy
    assert "triton (triton 3.7.1): self-test on cuda:0 gave wrong results" in "\n".join(result.advice)
    assert result.verdict.endswith("with the sparse backend torch.")


def test_known_bad_version_gives_its_fix():
    died = exit_text(-signal.SIGFPE, "")
    tests = [
        CPU_TEST,
        SelfTest("cuda:0", "spconv", problem=died),
        SelfTest("cuda:0", "torch", milliseconds=15.0, fingerprint=(1.0, 2.0)),
    ]
    result = report(tests, {"spconv-cu120": "2.3.6", "cumm-cu120": "0.4.11"})
    assert not result.healthy
    (problem,) = result.problems
    assert problem.startswith("sparse backend: spconv (spconv-cu120 2.3.6): self-test on cuda:0 died with SIGFPE (")
    assert "Known for this version." in problem
    assert 'fix: pip uninstall -y spconv-cu120 cumm-cu120 && pip install "spconv-cu126>=2.3.8"' in problem
    assert "until then: the torch backend works here (same results; 15.0 ms per pass" in problem
    assert result.verdict == "not ready: 1 problem to fix first, see above."
    assert not result.advice


def test_known_bad_version_that_happens_to_work_is_a_warning():
    tests = [CPU_TEST, SelfTest("cuda:0", "spconv", milliseconds=5.0, fingerprint=(1.0, 2.0))]
    result = report(tests, {"spconv-cu120": "2.3.6"})
    assert result.healthy
    assert "spconv-cu120 2.3.6 is reported to die with SIGFPE" in result.advice[0]


def test_cpu_only_spconv_is_named():
    shadowed = report([CPU_TEST], {"spconv": "2.3.8", "spconv-cu126": "2.3.8"})
    assert shadowed.problems[0].startswith("the CPU-only package spconv 2.3.8 shadows spconv-cu126 2.3.8")
    assert "pip uninstall -y spconv cumm &&" in shadowed.problems[0]
    alone = report([CPU_TEST], {"spconv": "2.3.8"})
    assert "is the CPU-only package and cannot use the GPU" in alone.problems[0]
    no_gpu = report([CPU_TEST], {"spconv": "2.3.8"}, devices=(CPU,), driver=None)
    assert no_gpu.healthy
    assert "is installed and never used" in no_gpu.advice[0]


def test_two_gpu_builds_are_named():
    result = report([CPU_TEST], {"spconv-cu120": "2.3.6", "spconv-cu126": "2.3.8"})
    assert result.problems[0].startswith("spconv-cu120 and spconv-cu126 are both installed")


@pytest.mark.parametrize("value", [2.1, float("nan")])
def test_wrong_results_are_a_problem(value):
    tests = [CPU_TEST, SelfTest("cuda:0", "spconv", milliseconds=5.0, fingerprint=(1.0, value))]
    result = report(tests, {"spconv-cu126": "2.3.8"})
    assert not result.healthy
    assert "gave wrong results" in result.problems[0]


def test_torch_without_gpu_support_small_shared_memory_and_missing_packages():
    result = report([CPU_TEST], devices=(CPU,), driver="550.1", shared_memory=64 * 2**20)
    assert result.healthy
    assert "NVIDIA driver 550.1 is there, but torch 2.13.0 (CUDA 12.6) sees no GPU" in result.advice[0]
    assert "/dev/shm holds 0.06 GiB" in result.advice[1]
    packages = {name: version for name, version in REQUIRED.items() if name != "h5py"}
    missing = examine(facts(CPU), "", [CPU_TEST], packages, None, MACHINE)
    assert missing.problems[0].startswith("not installed: h5py.")


def test_torch_that_cannot_be_imported():
    def child(arguments, timeout_s):
        return None, "died with SIGILL (illegal instruction)"

    result = diagnose(child=child)
    assert not result.healthy
    assert "torch could not be used: it died with SIGILL (illegal instruction)." in result.problems[0]
    assert result.self_tests == []


def test_tool_prints_json_and_returns_the_verdict(repository):
    command = [sys.executable, str(repository / "tools" / "doctor.py"), "--json", "--seconds", "0.05"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["healthy"] is True
