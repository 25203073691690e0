"""What eight-bit arithmetic costs and saves: export, quantise, evaluate both in onnxruntime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adperception.checkpoint.layout import file_sha256
from adperception.checkpoint.load import load_weights, weights_file
from adperception.compression.quantization import quantize_onnx
from adperception.config import Config
from adperception.engine.cell_runs import make_data_once
from adperception.engine.cells import bare_dataset, with_sections
from adperception.engine.compression_report import COMPARED
from adperception.engine.console import say
from adperception.engine.evaluate import evaluate_model
from adperception.engine.export import export_radar_model, onnx_session, run_onnx
from adperception.engine.radar_graph import RadarGraph, radar_graph, recorded_inputs
from adperception.engine.results import describe_machine, write_json
from adperception.evaluation.seed_statistics import paired_difference, spread
from adperception.models.base import Losses
from adperception.models.radar.base import RadarModel, RadarPrediction
from adperception.registry import MODELS, build
from adperception.structures import RadarBatch

__all__ = ["OnnxRadarModel", "run_quantization"]

COMPARED_FRAMES = 4
TIMED_RUNS = 21

Evaluate = Callable[..., dict[str, float]]


class OnnxRadarModel(RadarModel):
    """A radar model whose network runs in onnxruntime, frame by frame.

    Args:
        graph: the model that was exported; it prepares the inputs and reads the outputs.
        path: the ONNX file.
        threads: to compute with; 0: as many as onnxruntime thinks right.
    """

    def __init__(self, graph: RadarGraph, path: Path, threads: int = 0) -> None:
        super().__init__()
        self.class_names, self.moments = graph.model.class_names, graph.model.moments
        self._graph = graph
        self.session = onnx_session(path, threads)

    def forward(self, batch: Any, generator: torch.Generator | None = None) -> Losses:
        """Raises ValueError: an exported network cannot be trained."""
        raise ValueError("a network in onnxruntime cannot be trained; train the model that it was exported from.")

    def predict(self, batch: RadarBatch) -> list[RadarPrediction]:
        """See ``RadarModel.predict``."""
        inputs = [values.cpu() for values in self._graph.inputs(batch)]
        found = []
        for number in range(len(batch)):
            outputs = run_onnx(self.session, [values[number : number + 1].contiguous() for values in inputs])
            found += self._graph.predictions(outputs)
        return found


@dataclass(frozen=True)
class _Variant:
    """One file and what it does."""

    path: Path
    metrics: Mapping[str, float]
    milliseconds: float

    @property
    def mebibytes(self) -> float:
        return self.path.stat().st_size / 2**20


def run_quantization(
    config: Config,
    weights: Sequence[Path],
    work_dir: Path,
    calibration: int = 64,
    split: str | None = None,
    command: Sequence[str] = (),
    evaluate: Evaluate = evaluate_model,
) -> str:
    """Quantise networks and write ``results.json`` and ``results.md``.

    Args:
        config: config of the networks; its training frames calibrate, its ``val_dataset`` is evaluated.
        weights: weights of the networks, one file per training seed.
        work_dir: where ONNX files and results go.
        calibration: how many training frames calibrate.
        split: split of ``val_dataset`` to evaluate on; ``None``: the config's.
        command: for the results file.
        evaluate: what scores a model, for tests.

    Returns:
        The table.

    Raises:
        ImportError: if onnx, onnxscript or onnxruntime is not installed.
        ValueError: if the networks cannot be exported.
    """
    if calibration < 1:
        raise ValueError(f"--calibration {calibration} must be at least 1 frame.")
    make_data_once([config], work_dir.resolve())
    if split is not None:
        config = with_sections(config, val_dataset={**config.values["val_dataset"], "split": split})
    pairs, records = [], []
    for number, path in enumerate(weights):
        pair, record = _quantize(config, path, work_dir / f"network_{number}", calibration, evaluate)
        pairs.append(pair)
        records.append(record)
    report = _report(config.name, pairs)
    write_json(
        work_dir / "results.json",
        {
            "config": config.name,
            "method": "int8",
            "calibration_frames": calibration,
            "command": list(command),
            "networks": records,
            **describe_machine(torch.device("cpu")),
        },
    )
    (work_dir / "results.md").write_text(report, encoding="utf-8")
    return report


def _quantize(
    config: Config, weights: Path, folder: Path, calibration: int, evaluate: Evaluate
) -> tuple[tuple[_Variant, _Variant], dict[str, Any]]:
    model: RadarModel = build(MODELS, config.values["model"])
    load_weights(model, weights)
    graph = radar_graph(model.eval())
    inputs = recorded_inputs(graph, config.values["train_dataset"], calibration)
    grid = bare_dataset(config.values["train_dataset"]).grid
    before, after = folder / "float32.onnx", folder / "int8.onnx"
    say(str(export_radar_model(model, before, grid.shape, inputs[:COMPARED_FRAMES])))
    named = ({n: v.numpy() for n, v in zip(graph.input_names, frame, strict=True)} for frame in inputs)
    quantised, layers = quantize_onnx(before, after, named)
    say(f"{after}: {quantised} of {layers} layers are eight-bit")
    variants = []
    for path in (before, after):
        runnable = OnnxRadarModel(graph, path, threads=torch.get_num_threads())
        metrics = evaluate(config, runnable, {"onnx": str(path)}, folder / path.stem, torch.device("cpu"))
        variants.append(_Variant(path, metrics, _milliseconds(runnable, inputs[0])))
    record = {
        "weights": str(weights),
        "sha256": file_sha256(weights_file(weights)),
        "quantised_layers": quantised,
        "layers": layers,
        "variants": {
            v.path.stem: {"metrics": dict(v.metrics), "milliseconds": v.milliseconds, "mebibytes": v.mebibytes}
            for v in variants
        },
    }
    return (variants[0], variants[1]), record


def _milliseconds(model: OnnxRadarModel, inputs: Sequence[torch.Tensor]) -> float:
    """Median time of one frame."""
    times = []
    for _ in range(TIMED_RUNS + 2):
        start = time.perf_counter()
        run_onnx(model.session, inputs)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def _report(name: str, pairs: Sequence[tuple[_Variant, _Variant]]) -> str:
    lines = [
        f"# {name}: eight-bit arithmetic",
        "",
        f"Both in onnxruntime with {torch.get_num_threads()} threads. Mean ± standard deviation over {len(pairs)} "
        "networks.",
        "",
        f"| | file (MiB) | ms per frame | {' | '.join(COMPARED.values())} |",
        "|---" * (len(COMPARED) + 3) + "|",
    ]
    for number, title in enumerate(("32-bit floats", "eight-bit integers")):
        variants = [pair[number] for pair in pairs]
        size = statistics.mean(v.mebibytes for v in variants)
        clock = statistics.mean(v.milliseconds for v in variants)
        metrics = [str(spread([v.metrics[metric] for v in variants])) for metric in COMPARED]
        lines.append(f"| {title} | {size:.2f} | {clock:.1f} | {' | '.join(metrics)} |")
    found = [
        paired_difference([p[1].metrics[metric] for p in pairs], [p[0].metrics[metric] for p in pairs])
        for metric in COMPARED
    ]
    lines.append(f"| difference, 95 % interval | | | {' | '.join(f'{d}, {d.verdict}' for d in found)} |")
    return "\n".join(lines) + "\n"
