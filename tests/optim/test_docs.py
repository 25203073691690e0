"""The examples of the pages about optimizers run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adperception import optim
from adperception.engine.strategies import parse_distributed
from adperception.optim import Simulation, torch_communicator

WORKERS = 8
STRATEGIES = ["easgd", "lsgd", "mgrawa", "lgrawa", "dpsgd", "matcha", "aldsgd", "local_sgd"]


def python_blocks(page: str, repository: Path) -> list[str]:
    text = (repository / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    return blocks


def distributed_sections(text: str) -> list[dict[str, Any]]:
    """What follows ``distributed = ``, up to the parenthesis that closes it."""
    sections = []
    for match in re.finditer(r"distributed = dict\(", text):
        end, depth = match.end(), 1
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        sections.append(eval(text[match.end() - len("dict(") : end]))
    return sections


@pytest.mark.parametrize("page", ["sam", "lpf_sgd", "entropy_sgd", "autodrop", "graph_schedules", "communication_time"])
def test_examples_run(page: str, repository: Path) -> None:
    for block in python_blocks(page, repository):
        exec(compile(block, f"{page}.md", "exec"), {})


@pytest.mark.parametrize("page", STRATEGIES)
def test_config_and_code_of_a_strategy_say_the_same(
    page: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch_communicator, "TorchCommunicator", lambda: Simulation(WORKERS).communicators[0], raising=True
    )
    for block in python_blocks(page, repository):
        model = nn.Linear(2, 1)
        names: dict[str, Any] = {
            "model": model,
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
            "probe": lambda model: model(torch.ones(1, 2)).sum().backward(),
        }
        exec(compile(block, f"{page}.md", "exec"), names)
        sync = names["sync"]
        if "distributed" in names:
            plan = parse_distributed(names["distributed"], WORKERS)
            assert plan.strategy == sync.strategy
            assert plan.trigger(frames_per_step=1) == sync.trigger


def test_every_distributed_section_in_the_docs_is_valid(repository: Path) -> None:
    found = 0
    for page in sorted((repository / "docs").glob("*.md")):
        for section in distributed_sections(page.read_text()):
            parse_distributed(section, WORKERS)
            found += 1
    assert found >= 13


@pytest.mark.parametrize("page", STRATEGIES[:-1])
def test_options_are_printed_with_their_defaults(page: str, repository: Path) -> None:
    text = (repository / "docs" / f"{page}.md").read_text()
    strategy = vars(optim)[text.split("\n")[0].removeprefix("# ")]()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.+?) \|", text, re.MULTILINE)
    assert rows
    for names, values in rows:
        for name, value in zip(re.findall(r"\w+", names), values.split(", "), strict=True):
            assert eval(value.strip("`"), vars(optim)) == getattr(strategy, name), name


def test_simulation_of_the_page_runs(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = next(b for b in python_blocks("distributed_training", repository) if "Simulation" in b)
    exec(compile(block, "distributed_training.md", "exec"), {})
    assert "tensor(" in capsys.readouterr().out


@pytest.mark.multi_process
def test_example_runs_with_two_processes(repository: Path, tmp_path: Path) -> None:
    block = next(b for b in python_blocks("distributed_training", repository) if "init_process_group" in b)
    assert len(block.splitlines()) <= 60
    (tmp_path / "example.py").write_text(block)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "example.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    errors = [float(value) for value in re.findall(r"error of the consensus ([\d.]+), rounds", done.stdout)]
    assert len(errors) == 2
    assert errors[-1] < 0.7 < 1.0  # the variance of what is to be learnt is 1
    folder = tmp_path / "example_run"
    consensus = torch.load(folder / "consensus.pt", weights_only=True)
    workers = [torch.load(folder / f"worker_{number}.pt", weights_only=True)["model"] for number in (0, 1)]
    torch.testing.assert_close(consensus["0.weight"], (workers[0]["0.weight"] + workers[1]["0.weight"]) / 2)
    assert not torch.equal(workers[0]["0.weight"], workers[1]["0.weight"])
