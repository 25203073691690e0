"""The cells of a label-efficiency study: which runs it consists of, with which config, under which key.

A cell is one run, a pre-training or a fine-tuning. Its key is a hash of everything that decides its outcome: config,
frames, seed, and for a fine-tuning the key of its pre-training. Cells with another key lie in another folder, so a
study can be stopped, resumed, extended by seeds, or repeated with other steps in the same work directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adperception.config import Config, load_config, nearest
from adperception.engine.cells import (
    NEVER,
    bare_dataset,
    cell_key,
    data_version,
    few_checkpoints,
    transform_sections,
    with_sections,
)
from adperception.engine.sampling import SampleOrder
from adperception.engine.settings import Settings, parse_settings
from adperception.zoo import config_directory

__all__ = [
    "SCRATCH",
    "UPSTREAM_EPOCHS",
    "Cell",
    "Study",
    "default_pretraining",
    "fine_tuning_config",
    "plan_cells",
    "pretraining_config",
]

SCRATCH = "scratch"
"""The initialisation without pre-training."""

UPSTREAM_EPOCHS = {0.05: 80, 0.2: 320, 0.5: 160, 1.0: 80}
"""Epochs of the released AD-L-JEPA configs by share of labels. Not equal work: 5 % gets a quarter of the steps."""

Subset = Literal["first", "every"]
Budget = Literal["equal", "upstream"]


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        detector: config of the detector that is fine-tuned.
        pretraining: config by method; ``scratch`` has none.
        inits: methods to compare, ``scratch`` and names of ``pretraining``.
        fractions: shares of the labelled frames, each in (0, 1].
        seeds: number of seeds; a seed covers pre-training and fine-tuning.
        budget: ``"equal"``: the same optimizer steps for every fraction; ``"upstream"``: ``UPSTREAM_EPOCHS``.
        subset: ``"first"``: the first frames of the split (KITTI); ``"every"``: every k-th one (Waymo).
        steps: optimizer steps of a fine-tuning; ``None``: those of the detector's config with all labels.
        pretrain_steps: optimizer steps of a pre-training; ``None``: as its config says.
    """

    detector: Config
    pretraining: Mapping[str, Config]
    inits: tuple[str, ...]
    fractions: tuple[float, ...]
    seeds: int
    budget: Budget = "equal"
    subset: Subset = "first"
    steps: int | None = None
    pretrain_steps: int | None = None

    def __post_init__(self) -> None:
        for name, values in (("--init", self.inits), ("--fractions", self.fractions)):
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} {' '.join(map(str, values))}: give one or more different ones.")
        for fraction in self.fractions:
            if not 0 < fraction <= 1:
                raise ValueError(f"--fractions {fraction:g}: a share of the labels lies above 0 and is at most 1.")
            if self.subset == "every" and abs(round(1 / fraction) * fraction - 1) > 1e-6:
                raise ValueError(f"--subset every: {fraction:g} is not every k-th frame for a whole k (0.2 is k = 5).")
            if self.budget == "upstream" and fraction not in UPSTREAM_EPOCHS:
                known = ", ".join(f"{known:g}" for known in UPSTREAM_EPOCHS)
                raise ValueError(f"--budget upstream says nothing about the fraction {fraction:g}. It knows {known}.")
        if self.seeds < 1:
            raise ValueError(f"--seeds {self.seeds} must be at least 1.")
        for name, steps in (("--steps", self.steps), ("--pretrain-steps", self.pretrain_steps)):
            if steps is not None and steps < 1:
                raise ValueError(f"{name} {steps} must be at least 1.")
        if self.budget == "upstream" and self.steps is not None:
            raise ValueError("--budget upstream fixes the epochs; leave out --steps.")
        missing = [name for name in self.inits if name != SCRATCH and name not in self.pretraining]
        if missing:
            raise ValueError(f"no pre-training config for {', '.join(missing)}; give one with --pretrain NAME=CONFIG.")
        _check_detector(self.detector)


@dataclass(frozen=True)
class Cell:
    """One run of the study.

    Attributes:
        kind: ``"pretrain"`` or ``"finetune"``.
        init: the method.
        seed: of the run.
        fraction: share of labels; ``None`` for a pre-training, which uses none.
        config: its config; a fine-tuning still lacks the path of its encoder.
        key: hash of all that decides its outcome.
        needs: the pre-training that a fine-tuning starts from.
    """

    kind: Literal["pretrain", "finetune"]
    init: str
    seed: int
    fraction: float | None
    config: Config
    key: str
    needs: Cell | None = None

    @property
    def folder(self) -> Path:
        """Where the run lies, below the study's work directory."""
        part = [] if self.fraction is None else [f"labels_{self.fraction:g}"]
        return Path(self.kind, self.init, *part, f"seed_{self.seed}_{self.key[:12]}")

    def __str__(self) -> str:
        labels = "" if self.fraction is None else f", {self.fraction:.4g} of the labels"
        what = "pre-training" if self.kind == "pretrain" else "fine-tuning from"
        return f"{what} {self.init}{labels}, seed {self.seed}"


def plan_cells(study: Study) -> list[Cell]:
    """All cells, seed after seed, so that an early stop leaves whole comparisons; pre-trainings come first.

    The datasets must be there.
    """
    steps = study.steps if study.steps is not None else full_steps(study.detector)
    detectors = {fraction: fine_tuning_config(study, fraction, steps) for fraction in study.fractions}
    methods = {
        name: pretraining_config(study.pretraining[name], study.pretrain_steps)
        for name in study.inits
        if name != SCRATCH
    }
    data = {config.path: data_version(config) for config in (study.detector, *methods.values())}
    cells: list[Cell] = []
    for seed in range(study.seeds):
        pretrained: dict[str, Cell] = {}
        for name, method in methods.items():
            config = with_sections(method, seed=seed)
            key = cell_key(config.values, data[method.path])
            pretrained[name] = Cell("pretrain", name, seed, None, config, key)
        cells += pretrained.values()
        for fraction, detector in detectors.items():
            config = with_sections(detector, seed=seed)
            for init in study.inits:
                needs = pretrained.get(init)
                key = cell_key(config.values, data[study.detector.path], needs.key if needs else None)
                cells.append(Cell("finetune", init, seed, fraction, config, key, needs))
    return cells


def fine_tuning_config(study: Study, fraction: float, steps: int) -> Config:
    """The detector's config for a share of the labels: evaluated and judged at its last step only."""
    values = study.detector.values
    part = {"fraction": fraction} if study.subset == "first" else {"interval": round(1 / fraction)}
    train = {key: value for key, value in values["train"].items() if key not in ("epochs", "steps")}
    if study.budget == "upstream":
        train["epochs"] = UPSTREAM_EPOCHS[fraction]
    else:
        train["steps"] = steps
    return with_sections(
        study.detector,
        train_dataset={**values["train_dataset"], **part},
        train=train,
        evaluations=[{**section, "every_epochs": NEVER} for section in values["evaluations"]],
        checkpoint=few_checkpoints(train),
    )


def pretraining_config(config: Config, steps: int | None) -> Config:
    """A method's config without evaluations, for ``steps`` steps if given.

    Raises:
        ValueError: if it looks at labels.
    """
    dataset = config.values["train_dataset"]
    transforms = [section.get("type") for section in transform_sections(dataset)]
    if "GroundTruthSampling" in transforms or dataset.get("replace_empty_frames"):
        what = "GroundTruthSampling" if "GroundTruthSampling" in transforms else "replace_empty_frames"
        raise ValueError(
            f"{config.path}: {what} brings labels into the pre-training, also those that a small fraction must not "
            "know. Take it out, or choose a config without it."
        )
    train = dict(config.values["train"])
    if steps is not None:
        train = {key: value for key, value in train.items() if key not in ("epochs", "steps")} | {"steps": steps}
    return with_sections(config, train=train, evaluations=[], val_dataset=None, checkpoint=few_checkpoints(train))


def default_pretraining(detector: Config, method: str, overrides: Sequence[str] = ()) -> Config:
    """The zoo's config of ``method`` for a detector's config, on the detector's training frames.

    ``second_small`` in the folder ``second`` goes with ``ad_l_jepa_small`` in ``ad_l_jepa``. Of the detector's data,
    all frames of the training split are used, without the options that look at labels; transforms are the method's.

    Raises:
        ValueError: if there is no such config, or its geometry differs.
    """
    family = detector.path.resolve().parent.name
    variant = detector.name.removeprefix(f"{family}_")
    path = config_directory() / method / f"{method}_{variant}.py"
    if variant == detector.name or not path.is_file():
        methods = sorted(p.name for p in config_directory().iterdir() if p.is_dir() and any(p.glob("*.py")))
        hint = nearest(method, [SCRATCH, *methods]) if method not in methods else ""
        raise ValueError(
            f'--init {method}: there is no {method}/{method}_{variant}.py to go with "{detector.name}".{hint} Name a '
            f"config with --pretrain {method}=CONFIG."
        )
    config = load_config(path, overrides)
    for option in ("point_cloud_range", "voxel_size", "in_channels"):
        theirs, ours = config.values["model"].get(option), detector.values["model"].get(option)
        if theirs != ours:
            raise ValueError(
                f"{path}: model.{option} is {theirs}, that of {detector.path} is {ours}. A fair comparison needs the "
                f"same geometry; if you mean it, name the config with --pretrain {method}=CONFIG."
            )
    labels_only = ("classes", "replace_empty_frames", "transforms", "fraction", "interval")
    frames = {key: value for key, value in detector.values["train_dataset"].items() if key not in labels_only}
    transforms = config.values["train_dataset"].get("transforms", [])
    return with_sections(
        config, train_dataset={**frames, "transforms": transforms}, prepare=detector.values.get("prepare")
    )


def full_steps(config: Config) -> int:
    """Optimizer steps of a config with all its training frames."""
    train = parse_settings(config.values).train
    if train.steps is not None:
        return train.steps
    order = SampleOrder(
        frames=len(bare_dataset(config.values["train_dataset"]).frame_ids),
        batch_size=train.batch_size,
        accumulate_steps=train.accumulate_steps,
        world_size=1,
        seed=0,
        drop_last=train.drop_last,
    )
    return (train.epochs or 0) * order.steps_per_epoch


def _check_detector(config: Config) -> Settings:
    settings = parse_settings(config.values)
    if settings.init is not None:
        raise ValueError(f"{config.path}: the study decides what a run starts from; take out the init section.")
    for name in ("fraction", "interval"):
        if name in settings.train_dataset:
            raise ValueError(f"{config.path}: the study decides on the labels; take out train_dataset.{name}.")
    if not settings.evaluations:
        raise ValueError(f"{config.path}: the study needs evaluations to compare.")
    for transform in transform_sections(settings.train_dataset):
        if transform.get("type") == "GroundTruthSampling" and transform.get("database") is not None:
            raise ValueError(
                f"{config.path}: GroundTruthSampling has a database of its own, but every fraction needs one that "
                "holds its frames only. Take out database; it is built by itself."
            )
    return settings
