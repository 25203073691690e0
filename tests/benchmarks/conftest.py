"""Importing benchmarks, which are scripts and import each other."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def network_namespaces(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("network_namespaces")


@pytest.fixture
def network_time(network_namespaces: ModuleType) -> ModuleType:
    return importlib.import_module("network_time")


@pytest.fixture
def distributed_bytes(network_namespaces: ModuleType) -> ModuleType:
    return importlib.import_module("distributed_bytes")
