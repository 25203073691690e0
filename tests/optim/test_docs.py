"""The examples of the pages about optimizers run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import adperception.optim
from adperception.optim.autodrop import AutoDrop
from adperception.optim.entropy_sgd import EntropySGD
from adperception.optim.lpf_sgd import LPFSGD
from adperception.optim.sam import SAM


@pytest.mark.parametrize("page", ["sam", "lpf_sgd", "entropy_sgd", "autodrop"])
def test_examples_run(page: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, public in {"SAM": SAM, "LPFSGD": LPFSGD, "EntropySGD": EntropySGD, "AutoDrop": AutoDrop}.items():
        monkeypatch.setattr(adperception.optim, name, public, raising=False)
    text = (repository / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, f"{page}.md", "exec"), {})
