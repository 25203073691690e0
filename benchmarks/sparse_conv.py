"""Sparse convolutions on a GPU: our backends against spconv and against the roofline of the device.

    python benchmarks/sparse_conv.py --json sparse_conv.json
    python benchmarks/sparse_conv.py --device cpu --small        # only to see that it runs

VoxelBackBone8x and its residual variant, whole and layer by layer, at the densities of KITTI with batch 4 and 16 and of
Waymo with batch 8 (simulated frames, voxel limits of the configs). Backends and precisions take turns in one run; the
second-level cache is overwritten before every call of a layer. The accuracy of outputs and both gradients is against
float64 on the same rounded input. Products and bytes are counted: a share of 100 % would be a pass that is as fast as
the copies and matrix products measured in the same run allow.

spconv tunes its kernels when it first sees a shape, in the warm-up. It computes both gradients whichever is asked for,
so that its backward pass is to be compared, not its single gradients; the rulebook of a strided layer it cannot take up
again, so there is no forward pass without it. The comparison on CPUs is ``sparse_conv_cpu.py``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

import torch
from gpu_timing import (
    Context,
    Deadline,
    Report,
    Timings,
    add_options,
    build_and_weigh,
    ceilings,
    free_memory,
    time_in_turns,
)
from simulated_batches import SMALL_RANGE, kitti_frames, waymo_frames
from sparse_cases import (
    PASSES,
    EncoderRun,
    LayerCase,
    LayerRun,
    available_conditions,
    layer_cases,
    precision_of,
    relative_errors,
    roofline_seconds,
)

from adperception.geometry.voxelization import VoxelCollate, Voxelizer
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.models.backbones.voxel_res_backbone_8x import VoxelResBackBone8x
from adperception.structures import VoxelGrid, Voxels
from adperception.zoo import load_model_config

LIMITS = {"float32": 1e-5, "bf16": 1e-2, "fp16": 2e-3}
FASTER, AS_FAST = 1.3, 1.0
BACKBONES: dict[str, type[VoxelBackBone8x]] = {
    "VoxelBackBone8x": VoxelBackBone8x,
    "VoxelResBackBone8x": VoxelResBackBone8x,
}
DENSITIES = {  # name: (config, batch size)
    "KITTI batch 16": ("ad_l_jepa_kitti", 16),
    "KITTI batch 4": ("ad_l_jepa_kitti", 4),
    "Waymo batch 8": ("ad_l_jepa_waymo", 8),
}
SMALL = {"small batch 2": ("ad_l_jepa_tiny", 2)}


def main() -> int:
    """Parse the command line, measure in order of importance, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, turns=5)
    parser.add_argument("--calls", type=int, default=5, help="timed calls of a case in every turn")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    measurement = Measurement(device, arguments)
    measurement.run()
    measurement.report.finish()
    return 0


class Measurement:
    """One run of the benchmark.

    Args:
        device: where to measure.
        arguments: of the command line.
    """

    def __init__(self, device: torch.device, arguments: argparse.Namespace) -> None:
        self.device, self.small = device, arguments.small
        self.turns, self.calls = arguments.turns, 1 if arguments.small else arguments.calls
        self.report = Report("sparse_conv", device, arguments.small, arguments.json)
        self.deadline = Deadline(arguments.seconds)
        self.roofs = ceilings(device, small=arguments.small)
        everything = available_conditions(device)
        self.conditions = [(b, p) for b, p in everything if not p.startswith("tf32")]
        self.rounded = [(b, p) for b, p in everything if p.startswith("tf32")]
        # Plain PyTorch is no contender layer by layer; float32 and one half precision show where it stands.
        self.layer_conditions = [c for c in self.conditions if c != ("torch", "fp16")]
        self.report.extra["ceilings"] = self.roofs
        self._voxels: dict[str, Voxels] = {}
        self._grids: dict[str, VoxelGrid] = {}

    def run(self) -> None:
        """Everything, what matters most first."""
        densities = list(SMALL if self.small else DENSITIES)
        first, light = densities[0], densities[min(1, len(densities) - 1)]
        print(f"roofs: {self.roofs}")
        whole = self.whole_encoder("VoxelBackBone8x", first, self.conditions)
        self.judge_speed(whole, first)
        self.accuracy(light, self.conditions)
        self.layers("VoxelBackBone8x", first)
        self.whole_encoder("VoxelResBackBone8x", first, self.conditions)
        for density in densities[1:]:
            for backbone in BACKBONES:
                self.whole_encoder(backbone, density, self.conditions)
        if self.rounded:
            self.whole_encoder("VoxelBackBone8x", first, self.rounded)
            self.accuracy(light, self.rounded)
        for density in densities:
            for backbone in BACKBONES:
                if (backbone, density) != ("VoxelBackBone8x", first):
                    self.layers(backbone, density, only_new=backbone != "VoxelBackBone8x")

    def voxels(self, density: str) -> tuple[Voxels, VoxelGrid]:
        """The batch of a density on the device."""
        if density not in self._voxels:
            name, batch_size = (SMALL if self.small else DENSITIES)[density]
            config = load_model_config(name).values
            model, section = config["model"], config["train_dataset"]
            make = waymo_frames if section["type"] == "Waymo" else kitti_frames
            frames = make(section, batch_size, small=self.small)
            grid = VoxelGrid.create(SMALL_RANGE if self.small else model["point_cloud_range"], model["voxel_size"])
            voxelizer = Voxelizer(grid, model["max_points_per_voxel"], model["max_voxels_train"])
            batch = VoxelCollate(voxelizer, model["in_channels"])(frames)
            self._voxels[density], self._grids[density] = batch.voxels.to(self.device), grid
        return self._voxels[density], self._grids[density]

    def encoder(self, backbone: str, density: str) -> tuple[VoxelBackBone8x, Voxels]:
        """An encoder for the batch of a density."""
        voxels, grid = self.voxels(density)
        torch.manual_seed(0)
        return BACKBONES[backbone](voxels.features.shape[1], grid).to(self.device), voxels

    def whole_encoder(self, backbone: str, density: str, conditions: list[tuple[str, str]]) -> Timings:
        """Forward, and forward with backward, on backends and in precisions."""
        if self.deadline.left < 0:
            self.report.leave_out(f"{backbone}, {density}", "out of time")
            return Timings()
        encoder, voxels = self.encoder(backbone, density)
        cases: dict[str, Callable[[], object]] = {}
        contexts: dict[str, Context] = {}
        memory: dict[str, float | None] = {}
        for backend, precision in conditions:
            name = f"{backend} {precision}"
            context = partial(precision_of, backend, precision)
            run = EncoderRun(encoder, voxels, precision)
            cases[f"{name}, forward"], cases[f"{name}, training"] = run.forward, run.train
            contexts[f"{name}, forward"] = contexts[f"{name}, training"] = context
            try:
                with context():
                    _, memory[name] = build_and_weigh(lambda run=run: run.train, self.device)  # type: ignore[misc]
            except Exception:  # the same error is kept by the timing below
                memory[name] = None
        timings = self.time(cases, contexts, f"{backbone}, {density}", flush=False)
        print(f"\n{backbone}, {density}: {len(voxels):,} voxels, rulebooks and dense map included")
        print(f"{'backend':20} {'forward ms':>11} {'forward + backward ms':>22} {'(min..max)':>19} {'peak MiB':>9}")
        for backend, precision in conditions:
            name = f"{backend} {precision}"
            if not timings.seconds.get(f"{name}, training"):
                continue
            both, forward = timings.summary(f"{name}, training"), timings.median(f"{name}, forward")
            row = {
                "what": "encoder",
                "backbone": backbone,
                "density": density,
                "voxels": len(voxels),
                "backend": backend,
                "precision": precision,
                "forward_ms": None if forward is None else 1e3 * forward,
                "training_ms": both,
                "peak_memory_mib": memory[name],
            }
            self.report.add(row)
            spread = f"({both['min']:.3f}..{both['max']:.3f})"
            peak = "-" if memory[name] is None else f"{memory[name]:.0f}"
            print(f"{name:20} {1e3 * (forward or 0):11.3f} {both['median']:22.3f} {spread:>19} {peak:>9}")
        return timings

    def layers(self, backbone: str, density: str, *, only_new: bool = False) -> None:
        """Every kind of layer: all passes, with and without rulebook, and its share of the roofline."""
        if self.deadline.left < 0:
            self.report.leave_out(f"layers of {backbone}, {density}", "out of time")
            return
        print(f"\nlayers of {backbone}, {density}")
        print(f"{'layer':36} {'backend':16}" + "".join(f"{name:>22}" for name in PASSES) + f"{'rulebook':>10}")
        cases = layer_cases(*self.encoder(backbone, density))
        known = {
            (case.layer.in_channels, case.layer.out_channels, case.layer.kernel)
            for case in (layer_cases(*self.encoder("VoxelBackBone8x", density)) if only_new else ())
        }
        for case in cases:
            if (case.layer.in_channels, case.layer.out_channels, case.layer.kernel) in known:
                continue
            if self.deadline.left < 0:
                self.report.leave_out(f"{case.title} of {backbone}, {density}", "out of time")
                return
            self.layer(case, backbone, density)
            free_memory(self.device)

    def layer(self, case: LayerCase, backbone: str, density: str) -> None:
        """All backends, precisions and passes of one layer."""
        runs = {f"{b} {p}": LayerRun(case, b, p) for b, p in self.layer_conditions}
        cases: dict[str, Callable[[], object]] = {}
        contexts: dict[str, Context] = {}
        for name, run in runs.items():
            for which in run.passes:
                cases[f"{name}, {which}"] = partial(run.run, which)
                contexts[f"{name}, {which}"] = partial(precision_of, run.backend, run.precision)
        timings = self.time(cases, contexts, case.title, flush=True)
        for name, run in runs.items():
            medians = {which: timings.median(f"{name}, {which}") for which in PASSES}
            if all(seconds is None for seconds in medians.values()):
                continue
            least = roofline_seconds(case, run.precision, self.roofs)
            # A backward pass is two products.
            shares = {w: None if t is None else (2 if w == "backward" else 1) * least / t for w, t in medians.items()}
            without, with_rulebook = medians["forward"], medians["forward with rulebook"]
            rulebook = None if without is None or with_rulebook is None else with_rulebook - without
            self.report.add(
                {
                    "what": "layer",
                    "backbone": backbone,
                    "density": density,
                    "layer": case.title,
                    "layers": case.layers,
                    "sites": len(case.coordinates),
                    "outputs": case.outputs,
                    "pairs": case.pairs,
                    "operations": case.operations,
                    "bytes": case.traffic(run.features.element_size()),
                    "backend": run.backend,
                    "precision": run.precision,
                    "milliseconds": {w: None if t is None else 1e3 * t for w, t in medians.items()},
                    "rulebook_ms": None if rulebook is None else 1e3 * rulebook,
                    "share_of_roofline": shares,
                }
            )
            texts = [_milliseconds(medians[w], shares[w]) for w in PASSES]
            text = "-" if rulebook is None else f"{1e3 * rulebook:.3f}"
            print(f"{case.title:36} {name:16}" + "".join(f"{t:>22}" for t in texts) + f"{text:>10}", flush=True)

    def accuracy(self, density: str, conditions: list[tuple[str, str]]) -> None:
        """Largest errors of output and both gradients over all kinds of layers, judged per backend and precision."""
        if self.deadline.left < 0:
            self.report.leave_out(f"accuracy of {', '.join(' '.join(c) for c in conditions)}", "out of time")
            return
        worst: dict[tuple[str, str], list[float]] = {}
        for backbone in BACKBONES:
            for number, case in enumerate(layer_cases(*self.encoder(backbone, density))):
                for backend, precision in conditions:
                    try:
                        with precision_of(backend, precision):
                            errors = relative_errors(LayerRun(case, backend, precision, seed=100 + number))
                    except Exception as error:
                        self.report.leave_out(f"accuracy of {backend} {precision}, {case.title}", error)
                        continue
                    names = ("output", "input gradient", "weight gradient")
                    self.report.add(
                        {
                            "what": "accuracy",
                            "backbone": backbone,
                            "layer": case.title,
                            "backend": backend,
                            "precision": precision,
                            "errors": dict(zip(names, errors, strict=True)),
                        }
                    )
                    worst.setdefault((backend, precision), []).extend(errors)
        print(f"\nlargest error against float64 over all layers, {density}: output, input gradient, weight gradient")
        for (backend, precision), found in worst.items():
            parts = "  ".join(f"{max(found[i::3]):.1e}" for i in range(3))
            print(f"{backend + ' ' + precision:20} {parts}")
        for backend, precision in conditions:
            if precision in LIMITS and backend != "spconv":
                value = max(worst[backend, precision]) if (backend, precision) in worst else None
                claim = f"largest error of {backend} {precision} against float64"
                self.report.judge(1, claim, value, LIMITS[precision], at_least=False)

    def judge_speed(self, timings: Timings, density: str) -> None:
        """Hold training passes of the encoder against spconv's."""
        ours = "triton" if any(backend == "triton" for backend, _ in self.conditions) else "torch"
        half = [timings.ratio("spconv fp16, training", f"{ours} {p}, training") for p in ("bf16", "fp16")]
        reached = [value for value in half if value is not None]
        where = f"VoxelBackBone8x forward + backward, {density}"
        best = max(reached) if reached else None
        self.report.judge(2, f"{where}: spconv fp16 / {ours} bf16 or fp16", best, FASTER)
        full = timings.ratio("spconv float32, training", f"{ours} float32, training")
        self.report.judge(2, f"{where}: spconv float32 / {ours} float32", full, AS_FAST)

    def time(
        self, cases: dict[str, Callable[[], object]], contexts: dict[str, Context], what: str, *, flush: bool
    ) -> Timings:
        """Time cases and note those that failed."""
        timings = time_in_turns(
            cases,
            self.device,
            turns=self.turns,
            calls=self.calls,
            warm_up=1 if self.small else 3,
            flush=flush,
            deadline=self.deadline,
            contexts=contexts,
        )
        for name, error in timings.failures.items():
            self.report.leave_out(f"{what}: {name}", error)
        return timings


def _milliseconds(seconds: float | None, share: float | None) -> str:
    return "-" if seconds is None or share is None else f"{1e3 * seconds:.3f} ({100 * share:.0f} %)"


if __name__ == "__main__":
    sys.exit(main())
