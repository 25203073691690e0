"""The cells that studies are made of: single runs, each in a folder named by a hash of all that decides its outcome.

So a study can be stopped, resumed, extended, or repeated with other options in the same work directory: what is there
and fits is kept, anything else gets another folder.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import adperception
from adperception.config import Config
from adperception.located_dict import LocatedDict
from adperception.registry import DATASETS, build

__all__ = [
    "CELL_FILE",
    "NEVER",
    "AnyCell",
    "bare_dataset",
    "cell_key",
    "data_version",
    "few_checkpoints",
    "read_cell",
    "transform_sections",
    "with_sections",
]

CELL_FILE = "cell.json"
"""In the folder of a finished cell: what it found."""

NEVER = 10**9
"""Epochs between two evaluations of a run that is only evaluated at its end."""


class AnyCell(Protocol):
    """What every study's cells have.

    Attributes:
        key: hash of all that decides the outcome.
        folder: where the run lies, below the study's work directory.
    """

    @property
    def key(self) -> str: ...  # noqa: D102

    @property
    def folder(self) -> Path: ...  # noqa: D102


def read_cell(work_dir: Path, cell: AnyCell) -> dict[str, Any] | None:
    """What a finished cell found; ``None`` if it is not finished.

    Raises:
        ValueError: if the file is damaged or belongs to another cell.
    """
    path = work_dir / cell.folder / CELL_FILE
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        key = content["key"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is damaged ({error}). Delete it, and the cell is run again.") from error
    if key != cell.key:
        raise ValueError(f"{path}: belongs to the cell {key}, not {cell.key}. Delete it, and the cell is run again.")
    return content


def cell_key(values: Mapping[str, Any], data: Mapping[str, Any], needs: str | None = None) -> str:
    """Hash of what decides the outcome of a run; how it is logged, saved and fed does not count.

    Args:
        values: the config.
        data: ``data_version`` of the config.
        needs: key of the cell that the run starts from.
    """
    kept = {name: value for name, value in values.items() if name not in ("log", "checkpoint")}
    kept["train"] = {k: v for k, v in values["train"].items() if k not in ("workers", "evaluate_first")}
    if isinstance(values.get("prepare"), Mapping):
        kept["prepare"] = {key: value for key, value in values["prepare"].items() if key != "workers"}
    content = {"config": kept, "data": data, "needs": needs, "version": adperception.__version__}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def data_version(config: Config) -> dict[str, Any]:
    """Which frames a config trains and evaluates on, and how simulated ones were made. The data must be there."""
    version: dict[str, Any] = {}
    for name in ("train_dataset", "val_dataset"):
        section = config.values.get(name)
        if section is None:
            continue
        dataset = bare_dataset(section)
        names = "\n".join(dataset.frame_ids)
        version[name] = {"frames": len(dataset.frame_ids), "sha256": hashlib.sha256(names.encode()).hexdigest()}
        manifest = Path(getattr(dataset, "root", "")) / "simulation.json"
        if manifest.is_file():
            version[name]["simulation"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return version


def bare_dataset(section: Mapping[str, Any]) -> Any:
    """The dataset of a config section without its transforms, which may want to build an object database."""
    return build(DATASETS, {key: value for key, value in section.items() if key != "transforms"})


def transform_sections(dataset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The transform sections of a dataset section; what is none is complained about when it is built."""
    return [section for section in dataset.get("transforms", ()) if isinstance(section, Mapping)]


def few_checkpoints(train: Mapping[str, Any]) -> dict[str, Any]:
    """About ten checkpoints in a run of this ``train`` section, only the last of which is kept."""
    unit = "epochs" if train.get("steps") is None else "steps"
    return {f"every_{unit}": max(1, int(train[unit]) // 10), "keep": 1}


def with_sections(config: Config, **sections: Any) -> Config:
    """A copy of ``config`` with other top-level sections; ``None`` removes one."""
    values = copy.deepcopy(config.values)
    for name, section in sections.items():
        if section is None:
            values.pop(name, None)
            continue
        old = values.get(name)
        if isinstance(section, Mapping):
            section = LocatedDict(section, old.locations if isinstance(old, LocatedDict) else {})
        values[name] = section
    return Config(config.path, values, config.overrides)
