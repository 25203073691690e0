"""The package as installed: what it imports, what its wheel carries, what its source may not contain."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys, os
import adperception
for module in pkgutil.walk_packages(adperception.__path__, "adperception."):
    importlib.import_module(module.name)
banned = [name for name in ("open3d", "spconv", "cumm", "mmcv", "mmdet3d", "pkg_resources") if name in sys.modules]
assert not banned, banned
if sys.platform == "linux":
    maps = open("/proc/self/maps").read()
    found = [library for library in ("libGL.so", "libusb") if library in maps]
    assert not found, found
print("ok")
"""


def sources(repository: Path, *folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((repository / folder).rglob("*.py"))]


def test_importing_everything_loads_nothing_optional_and_no_libgl(repository: Path) -> None:
    result = subprocess.run([sys.executable, "-c", IMPORT_EVERYTHING], capture_output=True, text=True, cwd=repository)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("ok")


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF dependencies")
def test_no_shared_library_of_a_default_import_needs_libgl() -> None:
    """opencv's ordinary build links libGL, which is a system package; the headless one must be what is installed."""
    import cv2

    for library in Path(cv2.__file__).parent.rglob("*.so*"):
        assert b"libGL.so" not in library.read_bytes(), library


def test_wheel_works_in_an_empty_environment(repository: Path, tmp_path: Path) -> None:
    """Built, installed away from the checkout: the configs travel with it, so that the zoo works."""
    # A checkout in PYTHONPATH would come before the wheel.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(repository)]
    subprocess.run(build, env=variables, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "adperception/configs/ad_l_jepa/ad_l_jepa_kitti.py" in names
    assert not [name for name in names if name.startswith(("tests/", "tools/"))]

    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, env=variables, check=True, capture_output=True)
    # The dependencies of this environment, without this environment's copy of the package.
    site = next(p for p in sys.path if p.endswith("site-packages"))
    code = (
        f"import sys; sys.path.append({site!r})\n"
        "import adperception; from adperception.zoo import create_model, list_models\n"
        "print(adperception.__file__); print(list_models('*kitti*')); print(type(create_model('ad_l_jepa_kitti')))"
    )
    result = subprocess.run([python, "-c", code], env=variables, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert str(environment) in result.stdout
    assert "ADLJEPA" in result.stdout


def test_no_device_is_hard_coded_and_nothing_is_unpickled(repository: Path) -> None:
    banned = re.compile(r"\.cuda\(|pickle\.load|allow_pickle=True|weights_only=False|\beval\(|\bexec\(")
    for path in sources(repository, "adperception", "tools", "data_tools"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = banned.search(line)
            allowed = match is not None and match.group() == "eval(" and ".eval(" in line
            assert match is None or allowed, f"{path}:{number}: {line.strip()}"


def test_layers_import_downwards_only(repository: Path) -> None:
    """The arrows of docs/architecture.md."""
    ground = {"structures", "config", "registry", "located_dict"}
    allowed: dict[str, set[str]] = {
        "structures": {"structures"},
        "sparse": {"structures", "sparse"},
        "geometry": {"structures", "geometry"},
        "losses": {*ground, "sparse", "geometry", "losses"},
        "datasets": {*ground, "sparse", "geometry", "datasets"},
        "models": {*ground, "sparse", "geometry", "losses", "models"},
        "simulation": {*ground, "sparse", "geometry", "simulation", "datasets"},
        "compression": {"structures", "models", "compression"},
        "optim": {"optim"},
        "evaluation": {*ground, "sparse", "geometry", "losses", "evaluation", "models", "datasets"},
    }
    pattern = re.compile(r"^\s*(?:from|import) adperception\.(\w+)(\.\w+)?", re.MULTILINE)
    for package, may_import in allowed.items():
        for path in sources(repository, f"adperception/{package}"):
            for target, below in pattern.findall(path.read_text()):
                assert target in may_import, f"{path} imports adperception.{target}"
                if package in ("simulation", "evaluation") and target == "datasets":
                    assert below == ".formats", f"{path} imports adperception.datasets{below}"


def test_optimisers_need_torch_only() -> None:
    """With everything else that the package depends on out of reach."""
    code = """
import sys
for name in ("numpy", "scipy", "mmengine", "matplotlib", "h5py", "safetensors", "cv2", "tqdm", "tensorboard"):
    sys.modules[name] = None
import warnings; warnings.simplefilter("ignore")
import torch
import adperception.optim as optim
model = torch.nn.Linear(2, 1)
sync = optim.SyncOptimizer(
    torch.optim.SGD(model.parameters(), lr=0.1), optim.LSGD(), communicator=optim.Simulation(1).communicators[0],
    allow_single_worker=True,
)
assert not [name for name in sys.modules if name.startswith("adperception.") and ".optim" not in name]
print("ok")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "ok", result.stderr


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_waiting_threads_spin_briefly_unless_told_otherwise(given: dict[str, str], expected: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | given
    code = "import adperception, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == expected
