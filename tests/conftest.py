"""Fixtures shared by all tests: directories of stored data, threads."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
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


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
