"""The ``distributed`` section of a config: strategies, graph schedules and triggers by config string."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adperception import optim
from adperception.config import nearest
from adperception.located_dict import location_of
from adperception.optim import EverySamples, EverySteps, Graph, GraphSchedule, Strategy, Trigger, al_dsgd_graph
from adperception.registry import GRAPH_SCHEDULES, STRATEGIES

__all__ = ["DistributedPlan", "parse_distributed"]

for _strategy in (
    optim.EASGD,
    optim.LSGD,
    optim.MGRAWA,
    optim.LGRAWA,
    optim.DPSGD,
    optim.MATCHA,
    optim.ALDSGD,
    optim.LocalSGD,
    optim.PostLocalSGD,
    optim.SlowMo,
    optim.DiLoCo,
    optim.DPPF,
):
    STRATEGIES.register_module(module=_strategy)
for _schedule in (
    optim.RingSchedule,
    optim.CompleteSchedule,
    optim.FixedSchedule,
    optim.RotatingSchedule,
    optim.MATCHASchedule,
):
    GRAPH_SCHEDULES.register_module(module=_schedule)


@dataclass(frozen=True)
class DistributedPlan:
    """How the workers of a run are brought together. In a config, its options stand beside those of the strategy.

    Attributes:
        strategy: what happens in a round.
        sync_every_steps: a round after so many local steps; 16 unless ``sync_every_samples`` is given.
        sync_every_samples: instead, a round whenever all workers together have seen so many frames more.
        round_timeout_seconds: how long to wait for other workers in a round.
        on_failure: when a worker is lost, ``"raise"`` an error on all others (torchrun restarts them), or
            ``"regroup"``: the others go on. ``None``: regroup if every worker has a launcher of its own (``--store``),
            else raise.
        check_replicas_every: rounds between two comparisons of what must be equal on all workers; 0: never.
        allow_single_worker: run with one worker as well.
        overlap: communicate while the next gradient is computed; for strategies with ``order="joint"``.
    """

    strategy: Strategy
    sync_every_steps: int | None = None
    sync_every_samples: int | None = None
    round_timeout_seconds: float = 30.0
    on_failure: Literal["raise", "regroup"] | None = None
    check_replicas_every: int = 100
    allow_single_worker: bool = False
    overlap: bool = False

    def __post_init__(self) -> None:
        if self.sync_every_steps is not None and self.sync_every_samples is not None:
            raise ValueError("give one of sync_every_steps and sync_every_samples, not both.")
        for name in ("sync_every_steps", "sync_every_samples"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(
                    f"{name}={value} must be an integer of at least 1; 1 is a round after every local step."
                )
        if self.on_failure not in (None, "raise", "regroup"):
            raise ValueError(f'on_failure="{self.on_failure}" is unknown. Available: raise, regroup.')

    def trigger(self, frames_per_step: int) -> Trigger:
        """When there is a round, if a local step of one worker takes so many frames."""
        if self.sync_every_samples is not None:
            return EverySamples(self.sync_every_samples, frames_per_step)
        return EverySteps(self.sync_every_steps or 16)


_OWN_OPTIONS = [name for name in inspect.signature(DistributedPlan).parameters if name != "strategy"]


def parse_distributed(section: Mapping[str, Any], workers: int) -> DistributedPlan:
    """Check and build a ``distributed`` section.

    Args:
        section: ``type`` is the strategy; its options and those of ``DistributedPlan``.
        workers: number of workers, for graphs that are named.

    Raises:
        ValueError: for an unknown type or option, with file, line and the nearest valid name; for a value out of range.
    """
    target = STRATEGIES.find(section)
    options = list(inspect.signature(target).parameters)
    strategy_options: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, value in section.items():
        if key == "type":
            continue
        if key == "trigger":
            raise ValueError(
                f"{location_of(section, key)}a config has sync_every_steps or sync_every_samples. The ticket needs a "
                "training loop that lets fast workers do more steps: use SyncOptimizer with the trigger Ticket."
            )
        if key in _OWN_OPTIONS:
            own[key] = value
        elif key in options:
            strategy_options[key] = _build_value(section, key, value, workers)
        else:
            raise ValueError(
                f'{location_of(section, key)}"{key}" is not an option of {section["type"]}.'
                f"{nearest(key, [*options, *_OWN_OPTIONS])}"
            )
    try:
        return DistributedPlan(target(**strategy_options), **own)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{location_of(section, 'type')}distributed: {error}") from error


def _build_value(section: Mapping[str, Any], key: str, value: Any, workers: int) -> Any:
    """Schedules and graphs are sections and lists in a config."""
    if key == "schedule":
        return _build_schedule(value, workers)
    if key == "graph" and value is not None:
        return _build_graph(section, key, value, workers)
    return value


def _build_schedule(section: Mapping[str, Any], workers: int) -> GraphSchedule:
    target = GRAPH_SCHEDULES.find(section)
    valid = list(inspect.signature(target).parameters)
    options: dict[str, Any] = {}
    for key, value in section.items():
        if key == "type":
            continue
        if key not in valid:
            place = location_of(section, key)
            raise ValueError(f'{place}"{key}" is not an option of {section["type"]}.{nearest(key, valid)}')
        if key == "schedules":
            options[key] = tuple(_build_schedule(item, workers) for item in value)
        else:
            options[key] = _build_value(section, key, value, workers)
    schedule: GraphSchedule = target(**options)
    return schedule


def _build_graph(section: Mapping[str, Any], key: str, value: Any, workers: int) -> Graph:
    """``"ring"``, ``"complete"``, ``"path"``, the number of a published graph of 8 workers, or a list of edges."""
    named = {"ring": Graph.ring, "complete": Graph.complete, "path": Graph.path}
    if isinstance(value, int) and not isinstance(value, bool):
        return al_dsgd_graph(value)
    if isinstance(value, str) and value in named:
        return named[value](range(workers))
    if isinstance(value, Sequence) and not isinstance(value, str) and all(len(edge) == 2 for edge in value):
        try:
            return Graph.from_edges(range(workers), [(int(i), int(j)) for i, j in value])
        except ValueError as error:
            raise ValueError(f"{location_of(section, key)}{key}: {error}") from error
    raise ValueError(
        f'{location_of(section, key)}{key}={value!r} is no graph. Give "ring", "complete", "path", the number of a '
        "published graph (0 to 14, 8 workers), or a list of edges such as [[0, 1], [1, 2]]."
    )
