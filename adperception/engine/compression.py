"""How much of a network can go? Removes more and more, fine-tunes after every round, evaluates, and sums it up.

A finished cell has a file ``cell.json`` in its folder and is never run again; an interrupted fine-tuning goes on from
its checkpoint. The same command may be started several times at once.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adperception.checkpoint.load import load_weights, read_metadata
from adperception.checkpoint.save import write_tensors
from adperception.compression.resize import parameter_count, zero_count
from adperception.compression.structured_pruning import prune_channels
from adperception.compression.unstructured_pruning import prune_weights
from adperception.engine.cell_runs import (
    CONSOLE_FILE,
    POLL_SECONDS,
    Train,
    can_go_on,
    make_data_once,
    printed_to,
    time_limit,
    train_or_go_on,
)
from adperception.engine.cells import CELL_FILE, bare_dataset, read_cell, with_sections
from adperception.engine.checkpointing import checkpoint_root
from adperception.engine.claims import claimed
from adperception.engine.compression_plan import Cell, Compression, plan_cells
from adperception.engine.compression_report import CompressionResults, write_report
from adperception.engine.console import say
from adperception.engine.distributed import launched_processes, start_processes
from adperception.engine.evaluate import evaluate_weights
from adperception.engine.hooks.run_report import WEIGHTS_FILE
from adperception.engine.multiply_adds import multiply_adds_of
from adperception.engine.radar_graph import radar_graph, recorded_inputs
from adperception.engine.results import describe_machine, write_json
from adperception.engine.run import check_names, train
from adperception.engine.settings import parse_settings
from adperception.models.base import TrainableModel
from adperception.registry import MODELS, build

__all__ = ["CompressionRun", "run_compression"]

PRUNED_FILE = "pruned.safetensors"
"""In a cell's folder: the network before fine-tuning."""

Evaluate = Callable[..., dict[str, float]]


@dataclasses.dataclass(frozen=True)
class CompressionRun:
    """How a study is carried out.

    Attributes:
        work_dir: where everything is written.
        device: ``"cpu"``, ``"cuda"`` or ``None`` for cuda where there is one.
        time_limit_minutes: after this long a running fine-tuning stops at its next step, with a checkpoint.
        beside: ``results.json`` files of other studies, to be drawn into the same figure.
        command: for the results file.
    """

    work_dir: Path
    device: str | None = None
    time_limit_minutes: float | None = None
    beside: Sequence[Path] = ()
    command: Sequence[str] = ()


def run_compression(
    study: Compression, run: CompressionRun, train: Train = train, evaluate: Evaluate = evaluate_weights
) -> CompressionResults:
    """Run what is not done yet; write ``results.json``, ``results.md`` and ``results.png`` after every cell.

    Args:
        study: what is removed from which networks.
        run: where and for how long.
        train: what trains a config, for tests.
        evaluate: what scores weights, for tests.

    Returns:
        The results so far.

    Raises:
        ValueError: for anything that does not fit, before the first cell where possible.
    """
    if launched_processes() > 1:
        raise ValueError("compress runs in one process; start it without torchrun.")
    check_names(parse_settings(study.config.values))
    work_dir = run.work_dir.resolve()
    make_data_once([study.config], work_dir)
    cells = plan_cells(study)
    _remove(study, study.weights[0], study.shares[-1])  # so much must be possible at all

    def report() -> CompressionResults:
        found = [content for cell in cells if (content := read_cell(work_dir, cell)) is not None]
        results = CompressionResults(
            study.config.name, study.method, tuple(found), len(cells), {"command": list(run.command)}
        )
        write_report(results, run.work_dir, run.beside)
        return results

    done = sum(read_cell(work_dir, cell) is not None for cell in cells)
    say(f"{len(cells)} cells, {done} done; results in {run.work_dir}")
    with time_limit(run.time_limit_minutes) as is_over:
        while not all(read_cell(work_dir, cell) is not None for cell in cells):
            ran = False
            for number, cell in enumerate(cells, start=1):
                ready = cell.before is None or read_cell(work_dir, cell.before) is not None
                if not ready or is_over() or read_cell(work_dir, cell) is not None:
                    continue
                with claimed(work_dir / cell.folder) as mine:
                    if not mine or read_cell(work_dir, cell) is not None:
                        continue
                    ran = True
                    say(f"cell {number} of {len(cells)}: {cell} ({cell.folder})")
                    (work_dir / cell.folder).mkdir(parents=True, exist_ok=True)
                    with printed_to(work_dir / cell.folder / CONSOLE_FILE):
                        finished = _Cell(study, cell, work_dir, run.device).run(train, evaluate)
                    if finished:
                        report()
            if is_over():
                say("stopped; the same command goes on from here")
                break
            if not ran:
                time.sleep(POLL_SECONDS)
    return report()


@dataclasses.dataclass(frozen=True)
class _Cell:
    """One round of one network."""

    study: Compression
    cell: Cell
    work_dir: Path
    device: str | None

    @property
    def folder(self) -> Path:
        return self.work_dir / self.cell.folder

    def run(self, train: Train, evaluate: Evaluate) -> bool:
        """Prune, fine-tune, evaluate; returns whether it came to its end."""
        cell, before = self.cell, self.cell.before
        device = start_processes(self.device).device
        weights = cell.source if before is None else _result(self.work_dir / before.folder)
        seconds = 0.0
        if cell.share > 0:
            pruned = self.folder / PRUNED_FILE
            if cell.config is None or not can_go_on(self.folder):
                model = _remove(self.study, weights, cell.share)
                metadata = {**read_metadata(weights), "pruning": model.pruning.to_dict()}
                write_tensors(pruned, model.state_dict(), metadata)
            weights = pruned
        if cell.config is not None:
            config = with_sections(cell.config, init={"weights": str(weights)})
            trainer = train_or_go_on(config, self.folder, self.device, train)
            if not trainer.is_done:
                return False
            weights = self.folder / WEIGHTS_FILE
            if not weights.is_file():
                raise ValueError(f"the fine-tuning in {self.folder} left no {WEIGHTS_FILE}; what it printed says why.")
            seconds = trainer.progress.seconds
        config = self.study.config
        if self.study.split is not None:
            config = with_sections(config, val_dataset={**config.values["val_dataset"], "split": self.study.split})
        metrics = evaluate(config, weights, self.folder / "evaluation", device)
        write_json(self.folder / CELL_FILE, {**self._describe(weights, metrics, seconds), **describe_machine(device)})
        shutil.rmtree(checkpoint_root(self.folder), ignore_errors=True)
        return True

    def _describe(self, weights: Path, metrics: dict[str, float], seconds: float) -> dict[str, Any]:
        cell = self.cell
        model: TrainableModel = build(MODELS, self.study.config.values["model"])
        whole = parameter_count(model)
        load_weights(model, weights)
        parameters = parameter_count(model)
        if model.pruning.masked:
            parameters -= zero_count(model)
        grid = bare_dataset(self.study.config.values["train_dataset"]).grid
        operations = {name: found.total for name, found in multiply_adds_of(model, grid.shape).items()}
        return {
            "key": cell.key,
            "network": cell.network,
            "weights": str(cell.source),
            "method": self.study.method,
            "share": cell.share,
            "parameters": parameters,
            "removed": 1 - parameters / whole,
            "multiply_adds": operations,
            "metrics": metrics,
            "training_seconds": round(seconds, 3),
        }


def _remove(study: Compression, weights: Path, share: float) -> TrainableModel:
    """A network without a share of the parameters that it has by its config."""
    section = study.config.values["train_dataset"]
    model: TrainableModel = build(MODELS, study.config.values["model"])
    left = round((1 - share) * parameter_count(model))
    load_weights(model, weights)
    if study.method == "structured":
        graph = radar_graph(model)
        (inputs,) = recorded_inputs(graph, section, 1)
        prune_channels(model, lambda: graph(*inputs), left)
    elif study.method == "unstructured":
        prune_weights(model, left)
    return model


def _result(folder: Path) -> Path:
    """The weights that a cell ended with."""
    tuned = folder / WEIGHTS_FILE
    return tuned if tuned.is_file() else folder / PRUNED_FILE
