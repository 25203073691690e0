"""The cells of a compression study: one per trained network and share, each beginning where the one before ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adperception.checkpoint.layout import file_sha256
from adperception.checkpoint.load import weights_file
from adperception.config import Config
from adperception.engine.cells import cell_key, data_version, few_checkpoints, with_sections
from adperception.engine.settings import parse_settings
from adperception.registry import MODELS

__all__ = ["METHODS", "Cell", "Compression", "Method", "plan_cells"]

Method = Literal["structured", "unstructured", "none"]
METHODS: tuple[Method, ...] = ("structured", "unstructured", "none")
"""``"none"`` removes nothing and fine-tunes all the same: what the additional training does by itself."""


@dataclass(frozen=True)
class Compression:
    """What is done to which networks.

    Attributes:
        config: config of the networks; its data are fine-tuned on and evaluated.
        weights: weights of the networks, one file or checkpoint directory per training seed.
        method: what is removed.
        shares: shares of the parameters of the whole network that are gone after each round, ascending.
        steps: optimizer steps of fine-tuning after each round; 0 for none. ``None``: ``epochs`` says.
        epochs: passes over the training frames after each round.
        rate: learning rate of fine-tuning, constant.
        split: split of ``val_dataset`` to evaluate on; ``None``: the config's.
    """

    config: Config
    weights: tuple[Path, ...]
    method: Method
    shares: tuple[float, ...]
    steps: int | None = None
    epochs: int | None = None
    rate: float = 1e-5
    split: str | None = None

    def __post_init__(self) -> None:
        if not self.weights or len(set(self.weights)) != len(self.weights):
            raise ValueError("--weights: give the weights of one or more training runs, each once.")
        if not self.shares or list(self.shares) != sorted(set(self.shares)) or not 0 < self.shares[0] < 1:
            raise ValueError(f"--steps {' '.join(f'{s:g}' for s in self.shares)}: give ascending shares above 0.")
        if self.shares[-1] >= 1:
            raise ValueError(f"--steps {self.shares[-1]:g}: a share of the parameters that is removed lies below 1.")
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of --finetune-steps and --finetune-epochs.")
        if (self.steps or 0) < 0 or (self.epochs is not None and self.epochs < 1):
            raise ValueError("--finetune-steps must not be negative, --finetune-epochs must be at least 1.")
        if not self.rate > 0:
            raise ValueError(f"--lr {self.rate:g} must be positive.")


@dataclass(frozen=True)
class Cell:
    """One network at one share.

    Attributes:
        key: hash of all that decides the outcome.
        network: number of the weights file, 0 and up.
        share: share of the parameters that is removed; 0 is the network as it was given.
        config: config of the fine-tuning, without where it begins; ``None`` where there is none.
        source: weights of the network as it was given.
        before: the cell whose weights are pruned further; ``None``: those that were given.
    """

    key: str
    network: int
    share: float
    config: Config | None
    source: Path
    before: Cell | None

    @property
    def folder(self) -> Path:
        """Where the cell lies, below the study's work directory."""
        return Path(f"network_{self.network}") / f"removed_{round(100 * self.share):02d}_{self.key[:8]}"

    def __str__(self) -> str:
        return f"network {self.network}, {100 * self.share:g} % removed"


def plan_cells(study: Compression) -> list[Cell]:
    """All cells, network by network, each one after those that it begins from. The data must be there.

    Raises:
        ValueError: for a config without frames to evaluate on.
        FileNotFoundError: if weights are not there.
    """
    config = study.config
    settings = parse_settings(config.values)
    if settings.val_dataset is None or not settings.evaluations:
        raise ValueError(f"{config.path}: the config needs val_dataset and evaluations.")
    split = {} if study.split is None else {"split": study.split}
    evaluated = with_sections(config, val_dataset={**config.values["val_dataset"], **split})
    data = data_version(evaluated)
    cells: list[Cell] = []
    for number, path in enumerate(study.weights):
        origin = file_sha256(weights_file(path))
        tuned = _fine_tuning(study, number)
        before = Cell(cell_key(config.values, data, origin), number, 0.0, None, path, None)
        cells.append(before)
        for share in study.shares:
            content = {**(tuned or config).values, "compression": [study.method, share]}
            key = cell_key(content, data, before.key)
            before = Cell(key, number, share, tuned, path, before if before.share > 0 else None)
            cells.append(before)
    return cells


def _fine_tuning(study: Compression, number: int) -> Config | None:
    """The config of every round of one network."""
    if study.steps == 0:
        return None
    values = study.config.values
    train: dict[str, Any] = {k: v for k, v in values["train"].items() if k not in ("epochs", "steps")}
    train |= {"evaluate_first": False} | ({"epochs": study.epochs} if study.steps is None else {"steps": study.steps})
    options = MODELS.find(values["model"]).FINE_TUNING
    return with_sections(
        study.config,
        model={**values["model"], **options},
        optimizer={**values["optimizer"], "lr": study.rate},
        schedule={"type": "Constant"},
        train=train,
        val_dataset=None,
        evaluations=None,
        prepare=None,
        checkpoint=few_checkpoints(train),
        seed=parse_settings(values).seed + number,
    )
