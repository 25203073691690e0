"""Rules that hold for the source as a whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def sources(repository: Path) -> list[Path]:
    folders = ("adperception", "tools", "data_tools", "benchmarks", "configs")
    return sorted(path for folder in folders for path in (repository / folder).rglob("*.py"))


def test_mmengine_is_imported_in_three_modules_only(repository: Path) -> None:
    found = {
        path.relative_to(repository).as_posix()
        for path in sources(repository)
        if re.search(r"^\s*(from|import) mmengine", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == {
        "adperception/config.py",
        "adperception/registry.py",
        "adperception/engine/mmengine_runner.py",
    }


@pytest.mark.parametrize(
    "pattern", [r"\.cuda\(\)", r"\bpickle\b.*\bload", r"weights_only=False", r"allow_pickle=True", r"(?<![\w.])eval\("]
)
def test_forbidden_in_the_package(repository: Path, pattern: str) -> None:
    found = [
        f"{path}:{number}"
        for path in sources(repository)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found


def test_torchrun_variables_are_read_in_one_module(repository: Path) -> None:
    """Benchmarks set them for processes that they start; nothing else reads them."""
    found = {
        path.relative_to(repository).as_posix()
        for path in sources(repository)
        if path.parent.name != "benchmarks"
        and re.search(r"WORLD_SIZE|LOCAL_RANK|MASTER_ADDR", path.read_text(encoding="utf-8"))
    }
    assert found == {"adperception/engine/distributed.py"}
