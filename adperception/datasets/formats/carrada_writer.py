"""Writing CARRADA's native layout, frame by frame and then the index files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.carrada import CLASSES, LABELLED_VIEWS, VIEWS, cube_file, mask_file, view_file
from adperception.datasets.formats.radar_instances import RadarInstance, ViewLabel
from adperception.structures import RadarMasks, RadarViews

__all__ = ["CarradaFrame", "SequenceRecord", "write_frame", "write_indices", "write_sequence_files"]


@dataclass(frozen=True)
class CarradaFrame:
    """What is written of one frame.

    Attributes:
        magnitude: ``(range, azimuth, Doppler)`` float32, row 0 far.
        dense: pixel labels.
        sparse: the detections that the pixel labels grew from.
    """

    magnitude: NDArray[np.float32]
    dense: RadarMasks
    sparse: RadarMasks


@dataclass(frozen=True)
class SequenceRecord:
    """What the index files need to know of a written sequence.

    Attributes:
        name: of the sequence.
        split: ``"Train"``, ``"Validation"`` or ``"Test"``.
        frames: names of its frames.
        instances: frame to its labelled objects; every frame is in it.
    """

    name: str
    split: str
    frames: tuple[str, ...]
    instances: dict[str, tuple[RadarInstance, ...]]


def write_frame(root: Path, rad_root: Path, sequence: str, frame: str, content: CarradaFrame) -> None:
    """Write RAD tensor (float32), the six views (float64) and the one-hot masks (uint8) of a frame."""
    _save(cube_file(rad_root, sequence, frame), content.magnitude.astype(np.float32, copy=False))
    views = {"raw": RadarViews.raw(content.magnitude), "processed": RadarViews.processed(content.magnitude)}
    for view in VIEWS:
        _save(view_file(root, sequence, view, "raw", frame), getattr(views["raw"], view).astype(np.float64))
        _save(view_file(root, sequence, view, "processed", frame), getattr(views["processed"], view).astype(np.float64))
    for annotation, masks in (("dense", content.dense), ("sparse", content.sparse)):
        for view in LABELLED_VIEWS:
            mask = getattr(masks, view)
            layers = np.stack([mask == c for c in range(1 + len(CLASSES))]).astype(np.uint8)
            _save(mask_file(root, sequence, annotation, frame, view), layers)


def write_sequence_files(root: Path, record: SequenceRecord, times_ns: Sequence[int]) -> None:
    """Write the boxes and time stamps of a sequence whose frames are written."""
    folder = root / record.name / "annotations" / "box"
    for view in LABELLED_VIEWS:
        boxes = {
            frame: {
                "boxes": [getattr(i, view).box.tolist() for i in instances],
                "labels": [i.class_id for i in instances],
            }
            for frame, instances in record.instances.items()
            if instances
        }
        _dump(folder / f"{view}_light.json", boxes)
    times = "".join(f"{t}\n" for t in times_ns)
    path = root / record.name / f"adc_ts_{record.name}.txt"
    path.write_text(times, encoding="utf-8", newline="\n")


def write_indices(root: Path, records: Iterable[SequenceRecord]) -> None:
    """Write the index files of a tree from all its sequences."""
    records = sorted(records, key=lambda r: r.name)
    by_frame: dict[str, Any] = {}
    by_instance: dict[str, Any] = {}
    reference: dict[str, Any] = {}
    for record in records:
        frames: dict[str, Any] = {}
        instances: dict[str, dict[str, Any]] = defaultdict(dict)
        classes: dict[str, int] = {}
        for frame in record.frames:
            entry = {i.instance_id: _views(i) for i in record.instances[frame]}
            frames[frame] = entry
            for instance in record.instances[frame]:
                instances[instance.instance_id][frame] = entry[instance.instance_id]
                classes[instance.instance_id] = instance.class_id
        by_frame[record.name], by_instance[record.name] = frames, instances
        names = sorted(instances)
        reference[record.name] = {
            "split": record.split,
            "instances": names,
            "ref_frame": min(instances[names[0]]) if names else record.frames[0],
            "labels": [classes[n] for n in names],
            "min_frame_boundaries": [min(instances[n]) for n in names],
            "max_frame_boundaries": [max(instances[n]) for n in names],
        }
    _dump(root / "light_dataset_frame_oriented.json", {r.name: list(r.frames) for r in records})
    _dump(root / "annotations_frame_oriented.json", by_frame)
    _dump(root / "annotations_instance_oriented.json", by_instance)
    _dump(root / "data_seq_ref.json", reference)
    text = "".join(f"{r.name}\n" for r in records)
    (root / "validated_seqs.txt").write_text(text, encoding="utf-8", newline="\n")


def _views(instance: RadarInstance) -> dict[str, Any]:
    return {view: {**_label(getattr(instance, view)), "label": instance.class_id} for view in LABELLED_VIEWS}


def _label(label: ViewLabel) -> dict[str, Any]:
    low, high = label.box[:2].tolist(), label.box[2:].tolist()
    return {"sparse": label.sparse.tolist(), "box": [low, high], "dense": label.dense.tolist()}


def _save(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def _dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8", newline="\n")
