"""Fixtures shared by all tests: directories of stored data, threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
import torch

from adperception.sparse import available_backends, use_backend

matplotlib.use("Agg")
if not torch.cuda.is_available():
    # Triton's kernels run in its interpreter. Read when they are first imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
REPOSITORY = Path(__file__).resolve().parent.parent


def _data_directory(variable: str, default: str) -> Path:
    """The directory that ``variable`` names; skip without it, or fail when ADPERCEPTION_REQUIRE_DATA=1."""
    path = Path(os.environ.get(variable, REPOSITORY / default))
    if not path.is_dir():
        message = f"{variable}: {path} is not a directory"
        if os.environ.get("ADPERCEPTION_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with recorded data: ``lidar/kitti``, ``lidar/kitti_odometry``, ..."""
    return _data_directory("ADPERCEPTION_REAL_DATA", "../shared/data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with stored outputs of the upstream implementations."""
    return _data_directory("ADPERCEPTION_GOLDEN", "../shared/golden")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def simulated_radar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty simulated frames in CARRADA's layout, 64 x 64 x 16 cells: two or three samples per split."""
    from adperception.simulation.simulate_carrada import SimulateCARRADA

    root = tmp_path_factory.mktemp("radar") / "carrada"
    splits = {"Train": 0.34, "Validation": 0.33, "Test": 0.33}
    return SimulateCARRADA(root, frames=20, sequence_frames=7, splits=splits, radar="carrada_small")()


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda torch", marks=pytest.mark.gpu),
        pytest.param("cuda spconv", marks=pytest.mark.gpu),
        pytest.param("cuda triton", marks=pytest.mark.gpu),
    ]
)
def placement(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A device with a sparse backend selected: the CPU, and CUDA with each backend where there is a GPU."""
    device, _, backend = request.param.partition(" ")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if backend and backend not in available_backends(device):
        pytest.skip(f"{backend} is not installed")
    with use_backend(backend or "auto"):
        yield torch.device(device)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
