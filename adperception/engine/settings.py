"""The top-level keys of a config, typed and checked before anything is built."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from adperception.config import nearest
from adperception.located_dict import LocatedDict, location_of

__all__ = ["CheckpointSettings", "InitSettings", "LogSettings", "Settings", "TrainSettings", "parse_settings"]

T = TypeVar("T")


@dataclass(frozen=True)
class TrainSettings:
    """How long and in which portions to train. Give exactly one of ``epochs`` and ``steps``.

    Attributes:
        batch_size: frames per process and forward pass.
        epochs: passes over the training frames.
        steps: optimizer steps.
        accumulate_steps: forward passes per optimizer step. The effective batch is ``batch_size * accumulate_steps``
            times the number of processes.
        workers: data-loading processes per training process; the data do not depend on it.
        clip_grad_norm: largest norm of the whole gradient; ``None`` does not clip.
        drop_last: leave out the last optimizer step of an epoch if it would have fewer frames than the others.
        on_non_finite: what a NaN or infinite loss or gradient does: ``"stop"`` the run, or ``"skip"`` and count the
            step.
        evaluate_first: run the evaluations once before the first step, as a baseline and to find a broken one early.
        batch_norm_statistics: with which statistics a detector is evaluated and given away: its ``"running"`` ones, or
            ``"re-estimated"`` over some training frames. Running ones average over a hundred steps and more, so after
            a short run they describe weights that are gone. Checkpoints keep them in any case.
        amp: precision of forward passes: ``"off"`` (float32), ``"bf16"`` or ``"fp16"`` (with a loss scale). Weights,
            updates and evaluations are float32 in any case.
        check_finite_every: steps between two looks at whether losses and gradients are finite. A bad update is made
            in no case: with more than 1 the device itself leaves it out. ``None``: 20 on a GPU, 1 otherwise.
        compile: ``torch.compile`` the parts that the model names; a text is its ``mode``. ``None``: on a GPU, if there
            is what it needs (a C compiler, Python's header files).
        prefetch_factor: batches that each data-loading process keeps ready.
    """

    batch_size: int
    epochs: int | None = None
    steps: int | None = None
    accumulate_steps: int = 1
    workers: int = 0
    clip_grad_norm: float | None = None
    drop_last: bool = False
    on_non_finite: Literal["stop", "skip"] = "stop"
    evaluate_first: bool = True
    batch_norm_statistics: Literal["running", "re-estimated"] = "running"
    amp: Literal["off", "bf16", "fp16"] = "off"
    check_finite_every: int | None = None
    compile: bool | str | None = None
    prefetch_factor: int = 2

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"give exactly one of epochs and steps, not epochs={self.epochs} and steps={self.steps}.")
        for name in ("batch_size", "accumulate_steps", "epochs", "steps", "check_finite_every", "prefetch_factor"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if self.workers < 0:
            raise ValueError(f"workers={self.workers} must be 0 or more.")
        if self.clip_grad_norm is not None and not self.clip_grad_norm > 0:
            raise ValueError(f"clip_grad_norm={self.clip_grad_norm} must be positive, or None for no clipping.")


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save and what to keep. Without an interval, every epoch; the end of a run is always saved.

    Attributes:
        every_steps: save after this many optimizer steps.
        every_epochs: save after this many epochs.
        keep: number of newest checkpoints that stay on disk.
        best: name of an evaluation metric; the checkpoint with its best value stays as well.
        best_rule: ``"less"`` or ``"greater"`` is better.
    """

    every_steps: int | None = None
    every_epochs: int | None = None
    keep: int = 3
    best: str | None = None
    best_rule: Literal["less", "greater"] = "less"

    def __post_init__(self) -> None:
        for name in ("every_steps", "every_epochs", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")


@dataclass(frozen=True)
class LogSettings:
    """How often to write a line of ``log.jsonl`` and TensorBoard.

    Attributes:
        every_steps: optimizer steps between two lines.
    """

    every_steps: int = 10

    def __post_init__(self) -> None:
        if self.every_steps < 1:
            raise ValueError(f"every_steps={self.every_steps} must be at least 1.")


@dataclass(frozen=True)
class InitSettings:
    """Where the first weights come from. Give exactly one of ``encoder`` and ``weights``.

    Attributes:
        encoder: a pre-training checkpoint or weights file; only the model's encoder is taken from it (fine-tuning).
        weights: a checkpoint or weights file of the whole model.
        expect: ``"all"`` tensors of the encoder have to be found, or name prefixes of those that have to.
        branch: which encoder of the file, e.g. ``"target"``; ``None``: its first one, the one that is trained.
        first_layer: if the number of point features differs: ``"strict"`` refuses, ``"reinit"`` leaves the first
            layer as initialised, ``"slice"`` takes the weights of the first features.
    """

    encoder: str | None = None
    weights: str | None = None
    expect: str | Sequence[str] = "all"
    branch: str | None = None
    first_layer: Literal["strict", "reinit", "slice"] = "strict"

    def __post_init__(self) -> None:
        if (self.encoder is None) == (self.weights is None):
            raise ValueError(
                f"give exactly one of encoder and weights, not encoder={self.encoder} and weights={self.weights}."
            )


@dataclass(frozen=True)
class Settings:
    """A whole config. Sections with a ``type`` stay mappings; their registry checks them.

    Attributes:
        model: section of MODELS.
        train_dataset: section of DATASETS.
        optimizer: section of OPTIMIZERS.
        schedule: section of SCHEDULES.
        train: how long and in which portions.
        val_dataset: section of DATASETS, for the evaluations.
        prepare: section of PREPARATIONS, called once before the datasets are built (e.g. makes simulated data).
        evaluations: sections of EVALUATIONS.
        checkpoint: when to save.
        log: how often to log.
        init: where the first weights come from; ``None``: random ones.
        distributed: section of STRATEGIES: processes train apart and meet in rounds; ``None``: gradients are averaged
            in every step.
        seed: seed of everything random; ``--seed`` replaces it.
    """

    model: Mapping[str, Any]
    train_dataset: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    train: TrainSettings
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"type": "Constant"})
    val_dataset: Mapping[str, Any] | None = None
    prepare: Mapping[str, Any] | None = None
    evaluations: Sequence[Mapping[str, Any]] = ()
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    log: LogSettings = field(default_factory=LogSettings)
    init: InitSettings | None = None
    distributed: Mapping[str, Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must be 0 or more.")
        if self.evaluations and self.val_dataset is None:
            raise ValueError("evaluations need a val_dataset, but the config has none.")
        if self.distributed is not None:
            self._check_distributed()

    def _check_distributed(self) -> None:
        """Refuse what does not go together with processes that train apart."""
        if self.train.amp == "fp16":
            raise ValueError(
                'train.amp="fp16" does not go together with a distributed section: every worker would leave out other '
                'steps. Use train.amp="bf16" or "off".'
            )
        if self.train.check_finite_every not in (None, 1):
            raise ValueError(
                f"train.check_finite_every={self.train.check_finite_every} does not go together with a distributed "
                "section: a round needs to know at once whether a worker's step counts. Use 1."
            )


def parse_settings(values: Mapping[str, Any]) -> Settings:
    """Check the top level of a config and its ``train``, ``checkpoint``, ``log`` and ``init`` sections.

    Raises:
        ValueError: for an unknown, missing or wrongly typed key, with file, line and the nearest valid name.
    """
    return _parse(Settings, values, "a top-level key")


def _parse(cls: type[T], section: Mapping[str, Any], what: str) -> T:
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    arguments: dict[str, Any] = {}
    for key, value in section.items():
        place = location_of(section, key)
        if key not in fields:
            raise ValueError(f'{place}"{key}" is not {what}.{nearest(key, list(fields))}')
        section_type = _section_type(hints[key])
        if section_type is not None and isinstance(value, Mapping):
            value = _parse(section_type, value, f"an option of {key}")
        elif not _fits(value, hints[key]):
            wanted = _describe(hints[key])
            # A text that is not among the possible ones is of the right type.
            but = "" if isinstance(value, str) and "'" in wanted else f", not {type(value).__name__}"
            raise ValueError(f"{place}{key}={value!r} must be {wanted}{but}.")
        arguments[key] = value
    place = next(iter(section.locations.values()), "") if isinstance(section, LocatedDict) else ""
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in arguments:
            raise ValueError(f'{place}{"  " if place else ""}"{name}" is missing; it is needed as {what}.')
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ValueError(f"{place}{'  ' if place else ''}{what.removeprefix('an option of ')}: {error}") from error


def _section_type(hint: Any) -> type[Any] | None:
    """The settings class that a section is parsed into: the hint itself or, if it may be ``None``, the other half."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _fits(value: Any, hint: Any) -> bool:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in options)
    if origin is Literal:
        return value in options
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is Sequence:
        return isinstance(value, (list, tuple)) and all(_fits(item, options[0]) for item in value)
    return isinstance(value, origin or hint)


def _describe(hint: Any) -> str:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in options)
    if origin is Literal:
        return " or ".join(repr(option) for option in options)
    if hint is type(None):
        return "None"
    names = {float: "a number", int: "an integer", bool: "True or False", str: "a string"}
    return names.get(hint, "a list of sections" if origin is Sequence else "a section, dict(...)")
