"""What ``SyncOptimizer.step`` costs between two rounds, and the memory of every strategy.

    python benchmarks/distributed_overhead.py [--json overhead.json]

Strategies without work in every step are held against the bare optimizer: at most 5 % of its step, on the digits CNN
and on SECOND (the parameters of second_tiny). Those with it (a proximal pull, norms of training gradients) are held
against a whole training step: at most 5 % of it, on a batch of 32 digits and on two simulated LiDAR frames. Memory: a
strategy's own state, and one scratch copy of the parameters.

Everything is compared within one process: bare step, wrapped step and training step take turns in random order, and a
ratio is the median over the turns of the quotient within a turn, so that a change of the machine's speed hits both.
One thread, pinned; what is measured is its processor time. Rounds never come due. Losses are told where a strategy
needs them. Exit code 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adperception.optim import (
    ALDSGD,
    DPPF,
    DPSGD,
    EASGD,
    LGRAWA,
    LSGD,
    MATCHA,
    MGRAWA,
    DiLoCo,
    EverySteps,
    LocalSGD,
    PostLocalSGD,
    Simulation,
    SlowMo,
    Strategy,
    SyncOptimizer,
)

LIMIT = 0.05
WORKERS = 4
NEVER = EverySteps(10**9)
STRATEGIES: dict[str, Strategy] = {
    "EASGD": EASGD(),
    "LSGD": LSGD(),
    "LSGD(proximal=0)": LSGD(proximal=0),
    "LSGD(groups=2)": LSGD(groups=2),
    "MGRAWA": MGRAWA(),
    "MGRAWA(online)": MGRAWA(norm_source="online"),
    "LGRAWA": LGRAWA(),
    "LGRAWA(proximal=0)": LGRAWA(proximal=0),
    "LGRAWA(online)": LGRAWA(norm_source="online"),
    "DPSGD": DPSGD(),
    "MATCHA": MATCHA(),
    "ALDSGD": ALDSGD(),
    "LocalSGD": LocalSGD(),
    "PostLocalSGD": PostLocalSGD(local_from_step=0),
    "SlowMo": SlowMo(),
    "DiLoCo": DiLoCo(),
    "DPPF": DPPF(),
}


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        name: of the model.
        model: builds it, always alike.
        optimizer: builds the local optimizer.
        loss: of one mini-batch.
        steps: optimizer steps that are timed together.
        turns: how often everything is timed.
        training_every: turns between two whole training steps.
    """

    name: str
    model: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    loss: Callable[[nn.Module], Tensor]
    steps: int
    turns: int
    training_every: int


@dataclass(frozen=True)
class Figure:
    """One strategy on one model.

    Attributes:
        strategy: with its options.
        model: name of the case.
        step_work: whether the strategy does something in every step.
        bare_microseconds: a step of the bare optimizer.
        step_microseconds: a step of ``SyncOptimizer``.
        training_microseconds: forward, backward and bare step.
        over_step: how much longer than the bare step, as a share of it.
        over_training: the same, as a share of the training step.
        state: own state, in units of the parameters' bytes.
        scratch: memory shared by all rounds, in the same units.
    """

    strategy: str
    model: str
    step_work: bool
    bare_microseconds: float
    step_microseconds: float
    training_microseconds: float
    over_step: float
    over_training: float
    state: float
    scratch: float

    @property
    def overhead(self) -> float:
        """The share that is limited."""
        return self.over_training if self.step_work else self.over_step


def main() -> int:
    """Run the command line; 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--cases", nargs="+", choices=["digits", "second_tiny"], default=["digits", "second_tiny"])
    parser.add_argument("--turns-scale", type=float, default=1.0, help="factor on the number of turns")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    figures = []
    for build in (digits_case, second_case):
        if build.__name__.removesuffix("_case") not in " ".join(arguments.cases):
            continue
        case = build()
        print(f"{case.name}: {describe(case)}", flush=True)
        print(
            f"{'strategy':20} {'bare us':>9} {'step us':>9} {'of step':>8} {'training us':>12} {'of training':>12} "
            f"{'state P':>8} {'scratch P':>9}"
        )
        for name in arguments.strategies:
            figure = measure(case, name, max(3, round(case.turns * arguments.turns_scale)))
            figures.append(figure)
            print(row(figure), flush=True)
    broken = [f for f in figures if f.overhead > LIMIT]
    for figure in broken:
        of = "a training step" if figure.step_work else "the bare step"
        print(f"LIMIT BROKEN: {figure.strategy} on {figure.model}: {figure.overhead:.1%} of {of}, limit {LIMIT:.0%}")
    if arguments.json:
        machine = {"machine": platform.platform(), "torch": torch.__version__, "limit": LIMIT}
        arguments.json.write_text(json.dumps({**machine, "figures": [asdict(f) for f in figures]}, indent=1) + "\n")
    return 1 if broken else 0


def row(figure: Figure) -> str:
    """A line of the table; what is limited has a star."""
    step, training = f"{figure.over_step:+.1%}", f"{figure.over_training:+.2%}"
    step, training = (step, training + "*") if figure.step_work else (step + "*", training)
    return (
        f"{figure.strategy:20} {figure.bare_microseconds:9.1f} {figure.step_microseconds:9.1f} {step:>8} "
        f"{figure.training_microseconds:12.0f} {training:>12} "
        f"{figure.state:8.3f} {figure.scratch:9.3f}"
    )


def measure(case: Case, name: str, turns: int) -> Figure:
    """One strategy on one case; gradients stay the same from step to step and so small that nothing moves."""
    strategy = STRATEGIES[name]
    bare_model = case.model()
    bare = case.optimizer(bare_model)
    sync = first_of_simulated_workers(case, strategy)
    loss = torch.ones((), requires_grad=True) * 1  # as a model gives it
    for optimizer in (bare, sync):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 1e-9)
    train = training_step(case)
    seconds: dict[str, list[float]] = {"bare": [], "sync": [], "training": []}
    wrapped = partial(sync.step, loss=loss) if strategy.needs_loss else sync.step
    turn: list[tuple[str, Callable[[], object]]] = [("bare", bare.step), ("sync", wrapped)]
    for number in range(turns):
        random.shuffle(turn)
        for kind, step in turn:
            seconds[kind].append(seconds_of(step, case.steps))
        sync.worker.losses.clear()  # what a round does
        if number % case.training_every == 0:
            seconds["training"].append(seconds_of(train, 1))
    bare_us, sync_us, training_us = (1e6 * statistics.median(values) for values in seconds.values())
    over = statistics.median(s / b - 1 for s, b in zip(seconds["sync"], seconds["bare"], strict=True))
    parameter_bytes = sum(p.numel() * p.element_size() for p in sync.worker.params.parameters)
    memory = {kind: count / parameter_bytes for kind, count in sync.memory_bytes.items()}
    return Figure(
        name,
        case.name,
        strategy.has_step_work,
        bare_us,
        sync_us,
        training_us,
        over,
        over * bare_us / training_us,
        memory["state"],
        memory["scratch"],
    )


def first_of_simulated_workers(case: Case, strategy: Strategy) -> SyncOptimizer:
    """A worker that has started together with three others, which are not needed any more."""
    simulation = Simulation(WORKERS)
    syncs = []
    for communicator in simulation.communicators:
        model = case.model()
        syncs.append(
            SyncOptimizer(
                case.optimizer(model),
                strategy,
                NEVER,
                model=model,
                communicator=communicator,
                probe=case.loss,
            )
        )
    simulation.run([sync.starting() for sync in syncs])
    return syncs[0]


def training_step(case: Case) -> Callable[[], None]:
    """Forward, backward and step with the bare optimizer, warmed up."""
    model = case.model()
    optimizer = case.optimizer(model)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(case.loss(model))
        optimizer.step()

    step()
    return step


def seconds_of(step: Callable[[], object], count: int) -> float:
    """Mean processor time of a few calls, without the garbage collector."""
    gc.disable()
    try:
        start = time.thread_time()
        for _ in range(count):
            step()
        return (time.thread_time() - start) / count
    finally:
        gc.enable()


def describe(case: Case) -> str:
    """Size of the model and name of the optimizer."""
    model = case.model()
    parameters = list(model.parameters())
    optimizer = type(case.optimizer(model)).__name__
    return f"{len(parameters)} tensors, {sum(p.numel() for p in parameters):,} parameters, {optimizer}"


def digits_case() -> Case:
    """The small network of the digits study, on noise in their shape: 32 images of 8 x 8 pixels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(32, 1, 8, 8, generator=generator)
    labels = torch.randint(10, (32,), generator=generator)

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GroupNorm(4, 32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 10),
        )

    return Case(
        "digits CNN",
        model,
        lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True),
        lambda m: nn.functional.cross_entropy(m(images), labels),
        steps=5,
        turns=2000,
        training_every=8,
    )


def second_case() -> Case:
    """SECOND as second_tiny has it, on two simulated frames with a labelled car each."""
    from adperception.simulation.lidar_sensor import LidarSensor
    from adperception.simulation.simulate_kitti import simulate_frame
    from adperception.structures import Boxes3D, LidarFrame
    from adperception.zoo import create_model

    car = Boxes3D(np.array([[10.0, 2.0, -1.0, 3.9, 1.6, 1.56, 0.3]], dtype=np.float32), ("Car",))
    clouds = [simulate_frame(index, 0, LidarSensor()).cloud for index in range(2)]
    frames = [LidarFrame(str(index), cloud, car) for index, cloud in enumerate(clouds)]

    def model() -> nn.Module:
        torch.manual_seed(0)
        return create_model("second_tiny")

    batch = create_model("second_tiny").collate(training=True)(frames)
    return Case(
        "second_tiny",
        model,
        lambda m: torch.optim.AdamW(m.parameters(), lr=3e-3, betas=(0.95, 0.99), weight_decay=0.01),
        lambda m: m(batch).total,
        steps=1,
        turns=150,
        training_every=50,
    )


if __name__ == "__main__":
    sys.exit(main())
