"""Is a tree in CARRADA's layout what it should be? Counts, shapes, dtypes, time stamps, labels, per sequence.

Looks at the header of every file and at the values of a few frames; nothing is unpickled, nothing is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.carrada import find_tree, open_storage
from adperception.datasets.formats.carrada import (
    CLASSES,
    LABELLED_VIEWS,
    SPLITS,
    VIEWS,
    Instances,
    cube_file,
    mask_file,
    read_adc_times,
    read_annotations,
    read_boxes,
    read_frames,
    read_sensor,
    read_splits,
    view_file,
    view_shapes,
)
from adperception.datasets.formats.carrada_files import CarradaFiles, CarradaStorage
from adperception.datasets.formats.carrada_pack import CarradaPacks, pack_file
from adperception.datasets.formats.npy_arrays import read_array, read_array_header
from adperception.datasets.formats.radar_instances import RadarInstance
from adperception.structures import RadarGrid, RadarMasks, RadarViews

__all__ = ["KNOWN_LABELLED_FRAMES", "CarradaReport", "SequenceReport", "check_carrada"]

KNOWN_LABELLED_FRAMES: Mapping[str, Mapping[str, int]] = {
    "Train": {
        "2019-09-16-12-52-12": 286,
        "2019-09-16-12-55-51": 273,
        "2019-09-16-12-58-42": 304,
        "2019-09-16-13-03-38": 327,
        "2019-09-16-13-11-12": 219,
        "2019-09-16-13-14-29": 208,
        "2019-09-16-13-20-20": 174,
        "2019-09-16-13-25-35": 235,
        "2020-02-28-12-12-16": 442,
        "2020-02-28-12-16-05": 656,
        "2020-02-28-12-22-05": 340,
        "2020-02-28-13-05-44": 108,
        "2020-02-28-13-06-53": 129,
        "2020-02-28-13-09-58": 143,
        "2020-02-28-13-10-51": 104,
        "2020-02-28-13-12-42": 149,
        "2020-02-28-13-13-43": 124,
        "2020-02-28-13-15-36": 98,
    },
    "Validation": {
        "2019-09-16-13-06-41": 218,
        "2019-09-16-13-23-22": 174,
        "2020-02-28-12-17-57": 523,
        "2020-02-28-12-20-22": 350,
        "2020-02-28-13-07-38": 137,
        "2020-02-28-13-11-45": 81,
    },
    "Test": {
        "2019-09-16-13-13-01": 150,
        "2019-09-16-13-18-33": 152,
        "2020-02-28-12-13-54": 493,
        "2020-02-28-12-23-30": 304,
        "2020-02-28-13-08-51": 171,
        "2020-02-28-13-14-35": 121,
    },
}
"""Split to sequence to the number of frames with an object, of the real CARRADA."""

_FRAME_NS = 100_000_000
_MOST_SHOWN = 20
_VIEW_TOLERANCE_DB = 0.1


@dataclass
class SequenceReport:
    """What was seen of a sequence.

    Attributes:
        name: of the sequence.
        split: its split.
        listed: frames of the light index.
        counts: part (``cubes``, ``range_doppler_processed``, ``dense``, ...) to the number of frames that have it.
        labelled: frames with an object.
        objects: class to the number of its labels.
        errors: what would stop or spoil a training, one sentence each.
        remarks: what is odd but harmless.
    """

    name: str
    split: str
    listed: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    labelled: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CarradaReport:
    """What was seen of a tree.

    Attributes:
        sequences: one report each.
        errors: of the index files.
        remarks: of the index files.
    """

    sequences: tuple[SequenceReport, ...]
    errors: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether there is an error anywhere."""
        return bool(self.errors) or any(s.errors for s in self.sequences)

    def table(self) -> str:
        """The report as text for people."""
        lines = [
            f"{'sequence':<22}{'split':<12}{'frames':>7}{'cubes':>7}{'views':>7}{'masks':>7}{'labelled':>9}  objects"
        ]
        for s in self.sequences:
            views = min((n for part, n in s.counts.items() if part.endswith("processed")), default=0)
            masks = min((n for part, n in s.counts.items() if part in ("dense", "sparse")), default=0)
            objects = ", ".join(f"{s.objects[name]} {name}" for name in CLASSES if s.objects[name]) or "none"
            cubes = s.counts.get("cubes", 0)
            lines.append(
                f"{s.name:<22}{s.split:<12}{s.listed:>7}{cubes:>7}{views:>7}{masks:>7}{s.labelled:>9}  {objects}"
            )
        for split in SPLITS:
            mine = [s for s in self.sequences if s.split == split]
            lines.append(
                f"{split}: {len(mine)} sequences, {sum(s.listed for s in mine):,} frames, "
                f"{sum(s.labelled for s in mine):,} with objects"
            )
        lines += [
            f"note: {remark}" for remark in _shortened([*self.remarks, *(r for s in self.sequences for r in s.remarks)])
        ]
        lines += [
            f"ERROR: {error}" for error in _shortened([*self.errors, *(e for s in self.sequences for e in s.errors)])
        ]
        return "\n".join(lines)


def check_carrada(
    root: Path, rad_root: Path | None = None, sequences: Sequence[str] | None = None, values_of: int = 3
) -> CarradaReport:
    """Check a tree.

    Args:
        root: see ``CARRADA``.
        rad_root: see ``CARRADA``.
        sequences: only these; ``None``: all.
        values_of: frames per sequence, evenly spread, whose values are read as well.

    Raises:
        FileNotFoundError: if there is no tree.
        ValueError: if an index file is damaged, or a sequence is not in it.
    """
    root = find_tree(root)
    splits, listed, sensor = read_splits(root), read_frames(root), read_sensor(root)
    annotations = read_annotations(root)
    unknown = [s for s in sequences or () if s not in splits]
    if unknown:
        raise ValueError(f"{root}: sequence {unknown[0]} is not in data_seq_ref.json.")
    names = sorted(splits) if sequences is None else list(sequences)
    loose = root.parent / "Carrada_RAD"
    storage = open_storage(root, rad_root or (loose if loose.is_dir() else None), names, sensor.grid)
    errors, remarks = _check_indices(root, splits, listed, annotations)
    reports = []
    for name in names:
        check = _SequenceCheck(root, name, sensor.grid, storage, SequenceReport(name, splits[name]))
        check.run(listed.get(name, ()), annotations, values_of)
        if isinstance(storage, CarradaFiles):
            check.check_pack(root.parent / "Carrada_packed", listed.get(name, ()))
        reports.append(check.report)
    return CarradaReport(tuple(reports), tuple(errors), tuple(remarks))


def _check_indices(
    root: Path, splits: Mapping[str, str], listed: Mapping[str, Sequence[str]], annotations: Instances | None
) -> tuple[list[str], list[str]]:
    errors, remarks = [], []
    known = {s: split for split, every in KNOWN_LABELLED_FRAMES.items() for s in every}
    for sequence in sorted(set(splits) ^ set(listed)):
        present, absent = ("data_seq_ref", "light_dataset_frame_oriented")[:: 1 if sequence in splits else -1]
        errors.append(f"{root}: sequence {sequence} is in {present}.json but not in {absent}.json.")
    errors += [
        f"{root}: annotations_frame_oriented.json labels sequence {sequence}, which is in no split."
        for sequence in sorted(set(annotations or ()) - set(splits))
    ]
    errors += [
        f"{root}: sequence {sequence} is in {splits[sequence]}; CARRADA has it in {known[sequence]}."
        for sequence in sorted(set(splits) & set(known))
        if splits[sequence] != known[sequence]
    ]
    missing = sorted(set(known) - set(splits))
    if set(known) & set(splits) and missing:
        remarks.append(f"{len(missing)} of CARRADA's {len(known)} sequences are not here (first: {missing[0]}).")
    if annotations is None:
        remarks.append("there is no annotations_frame_oriented.json: objects come from masks and boxes.")
    return errors, remarks


class _SequenceCheck:
    """The checks of one sequence; what they find goes into ``report``."""

    def __init__(self, root: Path, name: str, grid: RadarGrid, storage: CarradaStorage, report: SequenceReport) -> None:
        self.root, self.name, self.grid, self.storage, self.report = root, name, grid, storage, report
        self.shapes = view_shapes(grid)
        self.existing: set[str] = set()

    def run(self, frames: Sequence[str], annotations: Instances | None, values_of: int) -> None:
        """All checks, each by itself: one that stops must not hide the others."""
        self.report.listed = len(frames)
        whole = self._collect(lambda: self._check_counts(set(frames)))
        self._collect(self._check_times)
        if annotations is None:
            self._collect(self._check_boxes)
        else:
            self._collect(lambda: self._check_labels(annotations.get(self.name, {})))
        if whole and frames:
            for i in np.unique(np.linspace(0, len(frames) - 1, min(values_of, len(frames))).astype(int)):
                frame = frames[i]
                instances = (annotations or {}).get(self.name, {}).get(frame, ())
                self._collect(lambda frame=frame, instances=instances: self._check_values(frame, instances))  # type: ignore[misc]

    def check_pack(self, folder: Path, frames: Sequence[str]) -> None:
        """If the sequence is packed as well: the dataset prefers that file, so it must be whole and have all frames."""
        if not pack_file(folder, self.name).is_file():
            return
        packs = CarradaPacks(folder, self.grid)

        def compare() -> None:
            missing = sorted(set(frames) - packs.present(self.name, "views"))
            if missing:
                self._error(
                    f"{pack_file(folder, self.name)}: lacks {len(missing)} frames ({_some(missing)}). Pack again."
                )

        self._collect(compare)
        packs.close()

    def _error(self, text: str) -> None:
        self.report.errors.append(f"{self.name}: {text}")

    def _collect(self, check: Callable[[], None]) -> bool:
        before = len(self.report.errors)
        try:
            check()
        except (ValueError, OSError) as error:
            self.report.errors.append(str(error))
        return len(self.report.errors) == before

    def _check_counts(self, frames: set[str]) -> None:
        parts = self._parts()
        for part, (names, required) in parts.items():
            self.report.counts[part] = len(names)
            missing = sorted(frames - names)
            if missing:
                text = f"{len(missing)} of {len(frames)} frames have no {part} ({_some(missing)})."
                if required:
                    self._error(text)
                else:
                    self.report.remarks.append(f"{self.name}: {text}")
        present = [names for names, required in parts.values() if required]
        self.existing = set.union(*present) if present else set()
        data = {
            part: names for part, (names, required) in parts.items() if required and part not in ("dense", "sparse")
        }
        if len({frozenset(names) for names in data.values()}) > 1:
            numbers = ", ".join(f"{len(names):,} {part}" for part, names in data.items())
            self._error(f"cubes and views do not have the same frames ({numbers}). Copy the smaller ones again.")

    def _parts(self) -> dict[str, tuple[set[str], bool]]:
        """Part to the frames that have it, and whether every frame must."""
        if not isinstance(self.storage, CarradaFiles):
            parts = {"cubes": "cubes", "processed": "views", "dense": "dense", "sparse": "sparse"}
            return {name: (self.storage.present(self.name, part), True) for name, part in parts.items()}
        found: dict[str, tuple[set[str], bool]] = {}
        if self.storage.rad_root is None:
            self.report.remarks.append(f"{self.name}: there is no folder of RAD tensors; cubes were not checked.")
        else:
            folder = cube_file(self.storage.rad_root, self.name, "0").parent
            found["cubes"] = (self._headers(folder, self.grid.shape, "f"), True)
        for kind in ("processed", "raw"):
            for view in VIEWS:
                folder = view_file(self.root, self.name, view, kind, "0").parent
                found[f"{view}_{kind}"] = (self._headers(folder, self.shapes[view], "f"), kind == "processed")
        for annotation in ("dense", "sparse"):
            folder = mask_file(self.root, self.name, annotation, "0", "").parent.parent
            names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
            for name in sorted(names):
                for view in LABELLED_VIEWS:
                    path, shape = folder / name / f"{view}.npy", (1 + len(CLASSES), *self.shapes[view])
                    if not self._collect(lambda path=path, shape=shape: _header(path, shape, "biuf")):  # type: ignore[misc]
                        names.discard(name)
            found[annotation] = (names, annotation == "dense")
        return found

    def _headers(self, folder: Path, shape: tuple[int, ...], kinds: str) -> set[str]:
        """Names of the whole files of a folder; the others become errors."""
        names = set()
        for path in sorted(folder.glob("*.npy")):
            if self._collect(lambda path=path: _header(path, shape, kinds)):  # type: ignore[misc]
                names.add(path.stem)
        return names

    def _check_times(self) -> None:
        times = read_adc_times(self.root, self.name)
        if times is None:
            self.report.remarks.append(f"{self.name}: no time stamps (adc_ts_{self.name}.txt).")
            return
        expected = len(self.existing)
        if expected and len(times) != expected:
            self._error(f"{len(times):,} time stamps for {expected:,} frames.")
        steps = np.diff(times)
        if (steps <= 0).any():
            self._error(f"time stamps do not grow from frame {int(np.argmax(steps <= 0))} to the next.")
        odd = np.flatnonzero(np.abs(steps - _FRAME_NS) > _FRAME_NS / 2)
        if len(odd):
            self.report.remarks.append(
                f"{self.name}: {len(odd)} steps between time stamps are not 0.1 s (first: {steps[odd[0]] / 1e9:.3f} s "
                f"after frame {odd[0]}); windows of several frames span them."
            )

    def _check_labels(self, labels: Mapping[str, Sequence[RadarInstance]]) -> None:
        self._count({frame: [i.class_id for i in every] for frame, every in labels.items()})
        for frame, instances in sorted(labels.items()):
            for instance in instances:
                for view in LABELLED_VIEWS:
                    label = getattr(instance, view)
                    pixels = np.concatenate([label.sparse, label.dense, label.box.reshape(2, 2)])
                    self._require_inside(frame, f"instance {instance.instance_id}", view, pixels)
                sums = instance.range_doppler.box[[0, 2]] + instance.range_angle.box[[2, 0]]
                if np.abs(sums - self.grid.range_bins).max() > 1:
                    self._error(
                        f"frame {frame}: instance {instance.instance_id}: the rows of its two boxes sum to "
                        f"{sums.tolist()}, must be {self.grid.range_bins}. Are the views of one frame and orientation?"
                    )

    def _check_boxes(self) -> None:
        boxes = {view: read_boxes(self.root, self.name, view) for view in LABELLED_VIEWS}
        self._count({frame: classes.tolist() for frame, (_, classes) in boxes["range_doppler"].items()})
        for view, every in boxes.items():
            for frame, (corners, _) in every.items():
                self._require_inside(frame, "a box", view, corners.reshape(-1, 2))

    def _count(self, labels: Mapping[str, Sequence[int]]) -> None:
        """Frames and objects that are labelled, against what is known and what exists."""
        self.report.labelled = len(labels)
        self.report.objects.update(CLASSES[c - 1] for every in labels.values() for c in every)
        missing = sorted(set(labels) - self.existing)
        if missing:
            self._error(f"objects are labelled in {len(missing)} frames that do not exist ({_some(missing)}).")
        known = KNOWN_LABELLED_FRAMES[self.report.split].get(self.name)
        if known is not None and known != len(labels):
            self._error(f"{len(labels)} frames with objects; the released annotations have {known}.")

    def _require_inside(self, frame: str, what: str, view: str, pixels: NDArray[np.int64]) -> None:
        shape = self.shapes[view]
        outside = int(((pixels < 0) | (pixels >= shape)).any(1).sum())
        if outside:
            self._error(
                f"frame {frame}: {what} has {outside} of {len(pixels)} positions outside the {view} view {shape}."
            )

    def _check_values(self, frame: str, instances: Sequence[RadarInstance]) -> None:
        views = self.storage.views(self.name, [frame])
        if "cubes" in self.report.counts:
            self._compare(frame, RadarViews.processed(self.storage.cubes(self.name, [frame])), views)
        masks = self.storage.masks(self.name, "dense", frame)
        if isinstance(self.storage, CarradaFiles):
            for view in LABELLED_VIEWS:
                layers = read_array(mask_file(self.root, self.name, "dense", frame, view))
                several = int((np.count_nonzero(layers, axis=0) != 1).sum())
                if several:
                    self.report.remarks.append(
                        f"{self.name}: frame {frame}: {several} {view} pixels have not one class."
                    )
        if instances:
            self._compare_masks(frame, instances, masks)

    def _compare(self, frame: str, projected: RadarViews, stored: RadarViews) -> None:
        for view in VIEWS:
            ours, theirs = getattr(projected, view), getattr(stored, view)
            difference = float(np.median(np.abs(ours - theirs)))
            if difference > _VIEW_TOLERANCE_DB:
                flipped = float(np.median(np.abs(ours[..., ::-1, :] - theirs)))
                hint = " (0 if its rows are flipped)" if flipped < _VIEW_TOLERANCE_DB else ""
                self._error(
                    f"frame {frame}: {view}_processed differs from the projected RAD tensor by {difference:.1f} dB in "
                    f"the median{hint}. Tensors and views are of different frames or orientation."
                )

    def _compare_masks(self, frame: str, instances: Sequence[RadarInstance], masks: RadarMasks) -> None:
        for view in LABELLED_VIEWS:
            mask = getattr(masks, view)
            wanted = np.zeros(mask.shape, dtype=bool)
            for instance in instances:
                rows, columns = getattr(instance, view).dense.T
                wanted[rows, columns] = True
            different = int(np.count_nonzero(wanted != (mask > 0)))
            text = f"frame {frame}: dense {view} mask and annotations differ in {different} pixels."
            if np.count_nonzero(wanted & (mask > 0)) < np.count_nonzero(wanted) / 2:
                self._error(f"{text} Copy the masks and annotations_frame_oriented.json of one release.")
            elif different:
                self.report.remarks.append(f"{self.name}: {text}")


def _header(path: Path, shape: tuple[int, ...], kinds: str) -> None:
    read_array_header(path, shape, kinds=kinds)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _shortened(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - _MOST_SHOWN
    return [*lines[:_MOST_SHOWN], *([f"... and {more} more"] if more > 0 else [])]
