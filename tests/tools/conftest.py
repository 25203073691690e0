"""Running tools in this process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

Main = Callable[[list[str]], int]


@pytest.fixture
def tool(repository: Path) -> Callable[[str], Main]:
    """``tool("infer")`` is the function ``main`` of ``tools/infer.py``."""

    def load(name: str) -> Main:
        spec = importlib.util.spec_from_file_location(f"tools_{name}", repository / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main  # type: ignore[no-any-return]

    return load
