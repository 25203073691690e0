"""The methods that ``tools/compare_optimizers.py`` compares, and the settings that each of them is tuned over.

Every method has equally many settings, so that none of them is ahead because more was tried: two learning rates times
six strengths of its own where it has that many, otherwise more learning rates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from adperception.config import nearest
from adperception.optim import (
    ALDSGD,
    DPPF,
    DPSGD,
    EASGD,
    LGRAWA,
    LSGD,
    MATCHA,
    MGRAWA,
    DataParallel,
    DiLoCo,
    LocalSGD,
    PostLocalSGD,
    RingSchedule,
    SlowMo,
    Strategy,
)

__all__ = [
    "CONFIGURATIONS",
    "DEFAULT_METHODS",
    "METHODS",
    "NO_COMMUNICATION",
    "REFERENCE",
    "Method",
    "Setting",
    "known_methods",
]

REFERENCE = "DataParallel"
NO_COMMUNICATION = "NoCommunication"

CONFIGURATIONS = 12
"""Settings per method."""

Options: TypeAlias = Mapping[str, float]

_RATES_2 = (0.03, 0.1)
_RATES_4 = (0.02, 0.03, 0.05, 0.1)
_RATES_12 = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2)
_PULLS: Mapping[str, tuple[float, ...]] = {"pull": (0.1, 0.3, 0.5), "proximal": (0.0, 0.1)}


@dataclass(frozen=True)
class Setting:
    """What is chosen on the validation split.

    Attributes:
        learning_rate: of the local optimizer, before it drops.
        options: of the strategy; those that are left out have their defaults.
    """

    learning_rate: float
    options: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return ", ".join([f"lr {self.learning_rate:g}", *(f"{name} {value:g}" for name, value in self.options)])


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        strategy: makes the strategy from options.
        learning_rates: of the grid.
        options: values of the grid by name of the option.
        communicates: whether there are rounds at all.
        in_criterion: whether it is one of those that are expected to keep up with the reference.
    """

    strategy: Callable[..., Strategy]
    learning_rates: tuple[float, ...] = _RATES_12
    options: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    communicates: bool = True
    in_criterion: bool = True

    @property
    def has_options(self) -> bool:
        """Whether there are strengths whose defaults are worth a look."""
        return bool(self.options)

    def settings(self, count: int = CONFIGURATIONS) -> list[Setting]:
        """The grid, or ``count`` settings spread evenly over it."""
        every = [
            Setting(rate, tuple(zip(self.options, values, strict=True)))
            for rate, *values in itertools.product(self.learning_rates, *self.options.values())
        ]
        if count == 1:
            return [every[len(every) // 2]]
        return [every[round(number * (len(every) - 1) / (count - 1))] for number in range(count)]

    def build(self, setting: Setting) -> Strategy:
        """The strategy of a setting."""
        return self.strategy(**dict(setting.options))


def _ring(weight: float | None = None) -> DPSGD:
    return DPSGD(RingSchedule(weight))


METHODS: Mapping[str, Method] = {
    REFERENCE: Method(DataParallel, in_criterion=False),
    NO_COMMUNICATION: Method(LocalSGD, communicates=False, in_criterion=False),
    "LocalSGD": Method(LocalSGD),
    "EASGD": Method(EASGD, _RATES_2, {"pull": (0.1, 0.3, 0.43, 0.5, 0.7, 0.9)}),
    "LSGD": Method(LSGD, _RATES_2, _PULLS),
    "MGRAWA": Method(MGRAWA, _RATES_2, _PULLS),
    "LGRAWA": Method(LGRAWA, _RATES_2, _PULLS),
    "DPSGD": Method(_ring, _RATES_4, {"weight": (0.2, 0.25, 0.3333)}),
    "SlowMo": Method(SlowMo, _RATES_2, {"momentum": (0.1, 0.2, 0.3, 0.5, 0.6, 0.7)}),
    "DiLoCo": Method(DiLoCo, _RATES_2, {"outer_lr": (0.3, 0.5, 0.7), "momentum": (0.5, 0.9)}),
    "MATCHA": Method(MATCHA, _RATES_2, {"budget": (0.2, 0.3, 0.4, 0.5, 0.6, 0.8)}, in_criterion=False),
    "ALDSGD": Method(ALDSGD, _RATES_2, {"best_weight": (0.1, 0.3, 0.5), "best_pull": (0.0, 0.2)}, in_criterion=False),
    "PostLocalSGD": Method(PostLocalSGD, _RATES_4, {"local_from_step": (4, 8, 12)}, in_criterion=False),
    "DPPF": Method(DPPF, _RATES_2, {"pull": (0.1, 0.3, 0.5), "push": (0.01, 0.1)}, in_criterion=False),
}
"""By the name of the strategy. Gossip is over a ring."""

DEFAULT_METHODS: Sequence[str] = [
    name for name, method in METHODS.items() if method.in_criterion or name in (REFERENCE, NO_COMMUNICATION)
]


def known_methods(names: Sequence[str]) -> list[str]:
    """The names, if all of them are known.

    Raises:
        ValueError: for the first one that is not.
    """
    for name in names:
        if name not in METHODS:
            raise ValueError(f"--methods {name} is unknown.{nearest(name, [*METHODS])}")
    return list(names)
