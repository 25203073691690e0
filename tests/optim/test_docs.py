"""The examples of the pages about optimizers run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


@pytest.mark.parametrize("page", ["sam", "lpf_sgd", "entropy_sgd", "autodrop", "graph_schedules", "communication_time"])
def test_examples_run(page: str, repository: Path) -> None:
    text = (repository / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, f"{page}.md", "exec"), {})
