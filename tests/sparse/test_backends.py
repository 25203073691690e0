"""Choice of the backend."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from adperception.sparse import SparseTensor, SubMConv3d, available_backends, backends, set_backend, use_backend
from adperception.sparse.tuning import DeviceTuning


@pytest.fixture(autouse=True)
def _ask_again() -> Iterator[None]:
    backends._usable_on.clear()
    yield
    backends._usable_on.clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends what is installed, what runs, and what was measured."""

    def pretend(
        installed: tuple[str, ...], problem: str = "", measured: dict[str, dict[str, float]] | None = None
    ) -> None:
        monkeypatch.setattr(backends, "_is_installed", lambda name: name in installed)
        monkeypatch.setattr(backends, "triton_problem", lambda device: problem)
        monkeypatch.setattr(backends, "read_tuning", lambda device: DeviceTuning(measured or {}))

    return pretend


def test_cpu_never_routes_through_a_gpu_backend(machine: Any) -> None:
    """Also where the package is installed: spconv's CPU results are wrong with several threads."""
    machine(("spconv", "triton"))
    assert available_backends("cpu") == ("torch",)
    assert backends.backend_for(torch.device("cpu")) == "torch"
    with use_backend("spconv"), pytest.raises(ValueError, match="wrong results with more than one thread"):
        SubMConv3d(1, 1, 3)(SparseTensor(torch.zeros(1, 1), torch.zeros(1, 4, dtype=torch.int32), (2, 2, 2), 1))


def test_without_measurements_spconv_then_torch(machine: Any) -> None:
    machine(("spconv", "triton"))
    assert available_backends("cuda") == ("spconv", "torch", "triton")
    machine(("triton",))
    backends._usable_on.clear()
    assert available_backends("cuda") == ("torch", "triton")
    assert backends.backend_for(torch.device("cuda")) == "torch"


def test_the_fastest_of_the_measured_ones_is_taken(machine: Any) -> None:
    measured = {
        "float32": {"spconv": 3.0, "torch": 9.0, "triton": 4.0},
        "bfloat16": {"spconv": 3.0, "torch": 9.0, "triton": 2.0},
    }
    machine(("spconv", "triton"), measured=measured)
    device = torch.device("cuda")
    assert backends.backend_for(device, torch.float32) == "spconv"
    assert backends.backend_for(device, torch.bfloat16) == "triton"
    assert available_backends(device, torch.bfloat16) == ("triton", "spconv", "torch")
    # What was measured and is gone, or runs no longer, is not taken.
    machine((), problem="no compiler", measured=measured)
    backends._usable_on.clear()
    assert available_backends(device, torch.bfloat16) == ("torch",)


def test_triton_is_not_taken_for_float64(machine: Any) -> None:
    machine(("triton",), measured={"float64": {"triton": 1.0, "torch": 2.0}})
    assert backends.backend_for(torch.device("cuda"), torch.float64) == "torch"


@pytest.mark.parametrize("name", ["spconv", "triton"])
def test_a_package_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_is_installed", lambda name: False)
    fix = r"pip install \"adperception\[gpu\]\"" if name == "spconv" else "Fix: "
    with pytest.raises(ModuleNotFoundError, match=fix):
        set_backend(name)


def test_triton_says_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_is_installed", lambda name: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with use_backend("triton"), pytest.raises(ValueError, match=r'"triton": it needs a CUDA device, and this is cpu'):
        backends.backend_for(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old")
    assert "Old has compute capability 7.5, it needs 8.0" in backends.triton_problem(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert not backends.triton_problem(torch.device("cuda"))
    monkeypatch.setattr(backends.shutil, "which", lambda name: None)
    assert "Install gcc or clang" in backends.triton_problem(torch.device("cuda"))


def test_unknown_name_and_restored_selection() -> None:
    with pytest.raises(ValueError, match=r'sparse backend "cudnn" is unknown\. Available: auto, torch, spconv, triton'):
        set_backend("cudnn")
    with use_backend("torch"):
        assert backends._selected == "torch"
    assert backends._selected == "auto"


def test_everything_but_the_backend_itself_works_without_triton() -> None:
    """It comes with PyTorch's CUDA builds for Linux only."""
    code = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import importlib, pkgutil
import torch
import adperception.engine
for module in pkgutil.iter_modules(adperception.engine.__path__, "adperception.engine."):
    importlib.import_module(module.name)  # as the registry does to find what a config names
from adperception.sparse import SparseTensor, SubMConv3d, backends
x = SparseTensor(torch.ones(1, 1), torch.zeros(1, 4, dtype=torch.int32), (2, 2, 2), 1)
assert SubMConv3d(1, 1, 3)(x).features.shape == (1, 1)
backends._is_installed = lambda name: sys.modules.get(name, name) is not None
assert "not installed" in backends.triton_problem(torch.device("cuda"))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
