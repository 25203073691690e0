"""Simulated recordings in CARRADA's layout: RAD tensors, views, masks, index files, and optionally packed sequences.

A recording is made sequence by sequence; every sequence has its own random generator from (seed, sequence number), so
the bytes of a tree do not depend on the number of processes that made it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from adperception.datasets.formats.carrada import SPLITS
from adperception.datasets.formats.carrada_files import CarradaFiles
from adperception.datasets.formats.carrada_pack import Coding, pack_sequence
from adperception.datasets.formats.carrada_writer import (
    CarradaFrame,
    SequenceRecord,
    write_frame,
    write_indices,
    write_sequence_files,
)
from adperception.datasets.formats.radar_instances import RadarInstance, ViewLabel
from adperception.datasets.formats.radar_sensor import SENSOR_FILE, RadarSensor
from adperception.registry import PREPARATIONS
from adperception.simulation.fmcw import FMCWRadar
from adperception.simulation.radar_labels import InstanceLabel
from adperception.simulation.radar_sequence import RadarSequence
from adperception.simulation.simulated_tree import SimulatedTree

__all__ = ["SimulateCARRADA", "simulate_sequence"]

_VERSION = 1


@PREPARATIONS.register_module()
class SimulateCARRADA(SimulatedTree):
    """Makes a tree of simulated radar sequences in CARRADA's layout, or finds it made (see ``SimulatedTree``).

    ``root/Carrada`` has the layout of the dataset's first archive, ``root/Carrada_RAD`` of the second.

    Args:
        root: folder of the tree.
        frames: number of frames of all sequences; the last sequence may be shorter than the others.
        seed: names the recording; same seed, same bytes.
        workers: processes that simulate; 1 works in this process. Does not change the result.
        splits: split name (Train, Validation, Test) to its share of the sequences; shares sum to 1.
        sequence_frames: frames per sequence, 0.1 s apart.
        radar: name of a preset of ``FMCWRadar``.
        ra_label_axis: where range-angle labels are: ``"sin"``, where the echo is, or ``"angle"``, displaced as those of
            CARRADA are.
        packed: also write ``root/Carrada_packed`` (one HDF5 file per sequence), coded ``"lossless"`` or
            ``"log_float16"``; ``None`` writes loose files only.

    Raises:
        ValueError: for options that make no sense.
    """

    def __init__(
        self,
        root: str | Path,
        frames: int = 200,
        seed: int = 0,
        workers: int = 1,
        splits: dict[str, float] | None = None,
        sequence_frames: int = 20,
        radar: str = "carrada",
        ra_label_axis: Literal["sin", "angle"] = "sin",
        packed: Coding | None = None,
    ) -> None:
        shares = splits or {"Train": 0.6, "Validation": 0.2, "Test": 0.2}
        super().__init__(root, frames, seed, workers, 1, shares)
        if set(self.splits) - set(SPLITS):
            raise ValueError(f"SimulateCARRADA: splits={self.splits} may only name {', '.join(SPLITS)}.")
        if sequence_frames < 5:
            raise ValueError(
                f"SimulateCARRADA: sequence_frames={sequence_frames} must be at least 5: the first four frames of a "
                "sequence only serve as predecessors."
            )
        if ra_label_axis not in ("sin", "angle"):
            raise ValueError(f'SimulateCARRADA: ra_label_axis={ra_label_axis!r} must be "sin" or "angle".')
        if packed not in (None, "lossless", "log_float16"):
            raise ValueError(f'SimulateCARRADA: packed={packed!r} must be None, "lossless" or "log_float16".')
        self.radar = FMCWRadar.preset(radar)
        self.radar_name, self.sequence_frames = radar, sequence_frames
        self.ra_label_axis, self.packed = ra_label_axis, packed

    @property
    def options(self) -> dict[str, Any]:
        """What the bytes of the tree depend on, as the manifest stores it."""
        return {
            "version": _VERSION,
            "layout": "carrada",
            "frames": self.frames,
            "seed": self.seed,
            "splits": self.splits,
            "sequence_frames": self.sequence_frames,
            "radar": self.radar_name,
            "ra_label_axis": self.ra_label_axis,
            "packed": self.packed,
        }

    def _make_folders(self) -> None:
        (self.root / "Carrada").mkdir(parents=True, exist_ok=True)

    def _make(self) -> None:
        pieces = -(-self.frames // self.sequence_frames)
        split_of = self.split_of_pieces(pieces)
        job = partial(
            simulate_sequence,
            seed=self.seed,
            frames=tuple(self._frames_of(p) for p in range(pieces)),
            splits=tuple(split_of),
            radar=self.radar,
            ra_label_axis=self.ra_label_axis,
            packed=self.packed,
            root=self.root,
        )
        write_indices(self.root / "Carrada", list(self._run(job, pieces, self._frames_of)))
        sensor = RadarSensor(self.radar.grid, label_axis=self.ra_label_axis, radar=self.radar.to_dict())
        sensor.write(self.root / "Carrada" / SENSOR_FILE)

    def _frames_of(self, piece: int) -> int:
        return min(self.sequence_frames, self.frames - piece * self.sequence_frames)


def simulate_sequence(
    number: int,
    *,
    seed: int,
    frames: tuple[int, ...],
    splits: tuple[str, ...],
    radar: FMCWRadar,
    ra_label_axis: Literal["sin", "angle"],
    packed: Coding | None,
    root: Path,
) -> SequenceRecord:
    """Simulate and write a sequence below ``root``; what it returns goes into the index files."""
    name, tree = f"simulated-{number:05d}", root / "Carrada"
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
    instances, times = {}, []
    for i, simulated in enumerate(RadarSequence(own_seed, frames[number], radar, ra_label_axis)):
        frame = f"{i:06d}"
        instances[frame] = tuple(_instance(label) for label in simulated.instances)
        times.append(simulated.time_ns)
        content = CarradaFrame(simulated.cube.magnitude(), simulated.masks, simulated.sparse)
        write_frame(tree, root / "Carrada_RAD", name, frame, content)
    record = SequenceRecord(name, splits[number], tuple(instances), instances)
    write_sequence_files(tree, record, times)
    if packed is not None:
        files = CarradaFiles(tree, root / "Carrada_RAD", radar.grid)
        pack_sequence(files, root / "Carrada_packed", name, record.frames, packed)
    return record


def _instance(label: InstanceLabel) -> RadarInstance:
    views = [ViewLabel(v.sparse, v.dense, v.box) for v in (label.range_doppler, label.range_angle)]
    return RadarInstance(f"{label.instance_id:06d}", label.class_id, *views)
