"""Runs of four workers with one failure at a random place, and what has to come of it.

Used by ``test_failures.py`` (one place of each failure) and ``benchmarks/failure_matrix.py`` (many). Every worker
trains a small network on data of its own, with a round every ``SYNC_EVERY`` steps and a checkpoint every
``SAVE_EVERY``. What has to happen is in ``docs/failures.md``; ``problems`` says what of it did not.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adperception.checkpoint import layout, save
from adperception.checkpoint.load import read_metadata, read_tensors
from adperception.checkpoint.optimizer_state import flatten_optimizer, restore_optimizer
from adperception.engine.workers import Workers
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
    RoundFailedError,
    SlowMo,
    Strategy,
    SyncOptimizer,
    consensus,
)
from adperception.optim.checksum import checksum
from adperception.optim.communication_errors import CommunicatorError
from adperception.optim.torch_communicator import TorchCommunicator

from faults import Faulty, Kill, Outcome, Place, Slow, kill_oneself

WORKERS, STEPS, SYNC_EVERY, SAVE_EVERY, POST_LOCAL_STEPS = 4, 24, 3, 4, 9
STRATEGIES: dict[str, Strategy] = {
    "LSGD": LSGD(),
    "EASGD": EASGD(),
    "LGRAWA": LGRAWA(),
    "DPSGD": DPSGD(),
    "MGRAWA": MGRAWA(),
    "MATCHA": MATCHA(),
    "ALDSGD": ALDSGD(),
    "LocalSGD": LocalSGD(),
    "PostLocalSGD": PostLocalSGD(local_from_step=POST_LOCAL_STEPS),
    "SlowMo": SlowMo(),
    "DiLoCo": DiLoCo(),
    "DPPF": DPPF(push=0.01),
    "LSGD with groups": LSGD(groups=2, global_every=2),
}
IN_ROUND = ("at arrival", "before collective", "in collective", "between vote and decision")
PLACES = {
    "killed worker": ("between steps", *IN_ROUND),
    "killed leader": ("between steps", *IN_ROUND),
    "slow worker": ("too late", "late"),
    "NaN worker": ("gradient", "loss"),
    "killed while saving": ("begin", "own file", "consensus", "model file", "rename"),
}
OF_MAIN = ("begin", "model file", "rename")
"""Places in a save where only the main worker comes by."""


@dataclass(frozen=True)
class Scenario:
    """One failure.

    Attributes:
        strategy: a key of ``STRATEGIES``.
        failure: a key of ``PLACES``.
        place: one of its places.
        step: the local step (from 0) in which, or before which, it happens; for a round, the step that it follows.
        victim: worker id; ``None``: the leader that was elected last.
        number: which collective of the round.
        seconds: how long a slow worker sleeps; after which time in a collective a worker is killed.
        timeout: ``round_timeout_seconds``.
        folder: for checkpoints.
    """

    strategy: str
    failure: str
    place: str
    step: int
    victim: int | None
    number: int
    seconds: float
    timeout: float
    folder: str


def draw(strategy: str, failure: str, point: int, seed: int, timeout: float, folder: Path) -> Scenario:
    """A random scenario; points that follow each other go through all places."""
    places = list(PLACES[failure])
    random.Random(f"{seed}/{strategy}/{failure}").shuffle(places)
    place = places[point % len(places)]
    draws = random.Random(f"{seed}/{strategy}/{failure}/{point}")
    # Some rounds come before and after, so that there is a leader, momentum, and something to go on to.
    step, victim = draws.randrange(SYNC_EVERY, STEPS - 3 * SYNC_EVERY), draws.randrange(WORKERS)
    seconds = draws.uniform(0, 0.003)
    if place in IN_ROUND or failure == "slow worker":
        step = step // SYNC_EVERY * SYNC_EVERY + SYNC_EVERY - 1
    if failure == "killed leader":
        victim = None if strategy == "LSGD" else 0
    elif failure == "slow worker":
        seconds = timeout * (draws.uniform(1.2, 2.0) if place == "too late" else draws.uniform(0.55, 0.75))
    elif failure == "killed while saving":
        step = (1 + step // SAVE_EVERY) * SAVE_EVERY - 1
        victim = 0 if place in OF_MAIN else victim
    return Scenario(strategy, failure, place, step, victim, draws.randrange(2), seconds, timeout, str(folder))


def network() -> nn.Sequential:
    """Some 90,000 parameters, so that a collective takes some time."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(32, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 320), nn.Linear(320, 5))


def loss_of(model: nn.Module, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16, 32, generator=generator)
    return nn.functional.cross_entropy(model(inputs), inputs[:, :5].argmax(1))


class Trainee:
    """One worker: network, optimizer, and the other workers.

    Args:
        communicator: how to reach them.
        strategy: what happens in a round.
        beat_seconds: between two meetings while a checkpoint is written.
    """

    def __init__(self, communicator: Any, strategy: Strategy, beat_seconds: float) -> None:
        self.model = network()
        self.local = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.communicator = communicator
        worker_id, members = communicator.worker_id, communicator.members
        self.workers = Workers(
            worker_id, len(members), torch.device("cpu"), communicator=communicator, beat_seconds=beat_seconds
        )
        self.sync = SyncOptimizer(
            self.local,
            strategy,
            EverySteps(SYNC_EVERY),
            model=self.model,
            communicator=communicator,
            probe=self.probe,
            check_replicas_every=1,
            allow_single_worker=True,
        )

    @staticmethod
    def probe(model: nn.Module) -> Tensor:
        loss = loss_of(model, 7)
        loss.backward()
        return loss.detach()

    def step(self, number: int, *, nan: str = "") -> None:
        """One local step, with a gradient or a loss that is not a number."""
        self.sync.zero_grad()
        loss = loss_of(self.model, 100 * number + self.workers.rank)
        loss.backward()
        if nan == "loss":
            self.sync.skip_step()
            return
        if nan:
            gradient = self.model[0].weight.grad
            assert gradient is not None
            gradient[3, 4] = math.nan
        self.sync.step(loss=loss.detach())

    def save(self, root: Path, step: int, dies: Callable[[str], None]) -> None:
        """A checkpoint of all that are left, in the same way as ``adperception.engine.checkpointing`` writes one.

        Args:
            root: folder of the checkpoints.
            step: steps done.
            dies: called with each place where a worker may be killed.
        """
        while True:
            members = self.workers.members
            self._save(root, step, dies)
            if self.workers.members == members:
                return

    def _save(self, root: Path, step: int, dies: Callable[[str], None]) -> None:
        temporary = root / f".{layout.step_directory(root, step).name}.tmp"

        def begin() -> str:
            dies("begin")
            return str(save.begin(root, step))

        def own() -> str:
            tensors, values = flatten_optimizer(self.local, self.model)
            state, plain = self.sync.sync_state()
            everything = {f"optimizer/{name}": tensor for name, tensor in tensors.items()}
            everything |= {f"strategy/{name}": tensor for name, tensor in state.items()}
            everything |= {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
            path = temporary / layout.rank_file(self.workers.rank)
            path.write_bytes(b"half")
            dies("own file")
            record = save.write_tensors(path, everything, {"optimizer": values, "strategy": plain})
            return json.dumps([path.name, dataclasses.astuple(record)])

        def model_file() -> str:
            dies("model file")
            record = save.write_tensors(temporary / layout.MODEL_FILE, self.model.state_dict())
            return json.dumps([layout.MODEL_FILE, dataclasses.astuple(record)])

        def complete() -> str:
            files = {name: layout.FileRecord(*record) for name, record in map(json.loads, written)}
            state = {"format_version": layout.FORMAT_VERSION, "step": step, "workers": list(self.workers.members)}
            if len(files) == len(self.workers.members) + 1:  # otherwise all begin again
                dies("rename")
                save.commit(temporary, root, step, state, files)
                save.prune(root, 3, [])
            return ""

        self.workers.main_does(begin)
        written = self.workers.all_do(own)
        dies("consensus")
        while True:
            context = consensus(self.sync, self.model)
            try:
                context.__enter__()
            except RoundFailedError:
                continue
            break
        try:
            written.append(self.workers.main_does(model_file))
        finally:
            context.__exit__(None, None, None)
        self.workers.main_does(complete)

    def load(self, directory: Path) -> None:
        """This worker's part of a checkpoint."""
        path = directory / layout.rank_file(self.workers.rank)
        tensors, values = read_tensors(path), read_metadata(path)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "strategy": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = tensor
        self.model.load_state_dict(parts["model"])
        restore_optimizer(self.local, self.model, parts["optimizer"], values["optimizer"])
        self.sync.load_sync_state(parts["strategy"], values["strategy"])

    def what_it_holds(self) -> dict[str, Any]:
        """Checksums of what has to be the same everywhere, and whether everything is finite."""
        sync = self.sync
        tensors = {name: sync.worker.state[name] for name in sync.strategy.replicated if name in sync.worker.state}
        with consensus(sync, self.model):
            tensors |= {name: value for name, value in self.model.state_dict().items() if value.is_floating_point()}
            sums = {name: checksum(value.clone().contiguous()) for name, value in tensors.items()}
        state = [*self.model.state_dict().values(), *sync.worker.state.values()]
        return {"sums": sums, "finite": all(bool(torch.isfinite(value).all()) for value in state)}


def train(place: Place, scenario: Scenario) -> dict[str, Any]:
    """What one worker does and sees; the function that the pool calls."""
    warnings = _warnings()
    inner = place.communicator(round_timeout_seconds=scenario.timeout, on_failure="regroup")
    communicator = Faulty(inner, [])
    strategy = STRATEGIES[scenario.strategy]
    trainee = Trainee(communicator, strategy, scenario.timeout / 4)
    sync, root = trainee.sync, Path(scenario.folder)
    seen: dict[str, Any] = {"error": "", "restarted": False, "leader": None, "slept": 0.0, "led": []}
    longest, done, last = 0.0, 0, time.monotonic()
    try:
        while done < STEPS:
            victim = seen["leader"] if scenario.victim is None else scenario.victim
            hit = done == scenario.step and victim == place.worker_id
            nan = scenario.place if hit and scenario.failure == "NaN worker" else ""
            if hit:
                seen["slept"] = _arm(communicator, scenario)
            rounds = sync.worker.rounds
            trainee.step(done, nan=nan)
            done += 1
            if sync.worker.rounds > rounds:
                seen["restarted"] |= sync.report.restarted
                if sync.report.leader is not None:
                    seen["leader"] = sync.report.leader
                    seen["led"].append((done - 1, sync.report.leader))
            if done % SAVE_EVERY == 0:
                dies = scenario.place if hit and scenario.failure == "killed while saving" else ""
                trainee.save(root, done, lambda at, dies=dies: kill_oneself() if at == dies else None)
            longest, last = max(longest, time.monotonic() - last - seen["slept"]), time.monotonic()
            seen["slept"] = 0.0
    except CommunicatorError as error:
        seen["error"] = type(error).__name__
        return {**seen, "longest": max(longest, time.monotonic() - last - seen["slept"]), "done": done}
    longest = max(longest, time.monotonic() - last)
    return {
        **seen,
        "longest": longest,
        "done": done,
        "members": inner.members,
        "lost": [lost.worker_id for lost in inner.workers_lost],
        "left_out": dict(sync.left_out),
        "warnings": warnings,
        **trainee.what_it_holds(),
        "resumed": _resume(place, inner.members, strategy, root, scenario.timeout),
    }


def _arm(communicator: Faulty, scenario: Scenario) -> float:
    """Let the failure happen, now or in the round of this step; seconds that this worker will sleep."""
    here, following = communicator.worker_id, communicator.round_number + 1
    if scenario.place == "between steps":
        kill_oneself()
    elif scenario.place in IN_ROUND:
        index = 0 if scenario.place == "in collective" else scenario.number
        kill = Kill(here, following, scenario.place, index, scenario.seconds)  # type: ignore[arg-type]
        communicator.faults = [kill]
    elif scenario.failure == "slow worker":
        communicator.faults = [Slow(here, following, scenario.seconds)]
        return scenario.seconds
    return 0.0


def _warnings() -> list[str]:
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("adperception").addHandler(handler)
    return found


def _resume(
    place: Place, members: tuple[int, ...], strategy: Strategy, root: Path, timeout: float
) -> list[dict[str, Any]]:
    """Start again from the last complete checkpoint, as the workers that are left: where each was, then the consensus.

    Groups that the workers cannot be divided into are given up; the consensus serves any strategy.
    """
    found = layout.newest_complete(root, lambda message: None)
    assert found is not None
    directory, state = found
    results = []
    for way in ("own state", "consensus"):
        chosen = strategy
        if isinstance(strategy, LSGD) and len(members) % strategy.groups:
            if way == "own state":
                continue
            chosen = LSGD()
        communicator = TorchCommunicator(
            store=place.store(),
            worker_id=place.worker_id,
            workers=members,
            round_timeout_seconds=timeout,
            on_failure="regroup",
            name=way,
        )
        trainee = Trainee(communicator, chosen, timeout / 4)
        if way == "own state":
            trainee.load(directory)
        else:
            trainee.model.load_state_dict(read_tensors(directory / layout.MODEL_FILE))
            trainee.sync.restart_from(trainee.sync.worker.vector.clone())
        before = trainee.sync.worker.rounds
        for number in range(2 * SYNC_EVERY):
            trainee.step(state["step"] + number)
        rounds = trainee.sync.worker.rounds - before
        results.append({"from": state["step"], "of": state["workers"], "rounds": rounds, **trainee.what_it_holds()})
    return results


def problems(scenario: Scenario, outcomes: list[Outcome]) -> list[str]:
    """What did not come out as documented."""
    found: list[str] = []
    dies, late = scenario.failure.startswith("killed"), scenario.place == "too late"
    killed = [
        worker for worker, outcome in enumerate(outcomes) if outcome.exit_code == -9 and "hung" not in outcome.error
    ]
    seen = {worker: outcome.returned for worker, outcome in enumerate(outcomes) if outcome.returned is not None}
    excluded = [worker for worker, values in seen.items() if values["error"] == "ExcludedError"]
    gone = [*killed, *excluded]
    if len(killed) != dies or len(excluded) != late or (gone and scenario.victim not in (None, *gone)):
        found.append(f"killed {killed}, excluded {excluded}")
    for worker, outcome in enumerate(outcomes):
        if worker not in killed and (outcome.exit_code != 0 or outcome.error):
            found.append(f"worker {worker} ended with {outcome.exit_code} {outcome.error}")
        if worker in seen and seen[worker]["longest"] > 3 * scenario.timeout:
            found.append(f"worker {worker} was blocked for {seen[worker]['longest']:.1f} s")
    left = [worker for worker in seen if worker not in gone]
    for worker in left:
        found += [f"worker {worker}: {text}" for text in _end_problems(seen[worker], seen[left[0]], left, gone)]
        found += [f"worker {worker}: {text}" for text in _missing_signs(scenario, worker, seen[worker])]
    return found


def _end_problems(own: dict[str, Any], first: dict[str, Any], left: list[int], gone: list[int]) -> Iterator[str]:
    """Whether a worker that is left is where it should be, and holds what the first of them holds."""
    if own["error"] or first["error"] or own["done"] != STEPS:
        yield f"{own['error']} after {own['done']} steps"
        return
    if own["members"] != tuple(left) or sorted(own["lost"]) != gone:
        yield f"members {own['members']}, lost {own['lost']}"
    for what, mine, others in [
        ("", own, first),
        *(("resumed: ", *pair) for pair in zip(own["resumed"], first["resumed"], strict=True)),
    ]:
        if not mine["finite"]:
            yield f"{what}not finite"
        if mine["sums"] != others["sums"]:
            yield f"{what}other bits than worker {left[0]}"
    for resumed in own["resumed"]:
        if (resumed["from"], resumed["of"], resumed["rounds"]) != (STEPS, left, 2):
            yield f"resumed from step {resumed['from']} of {resumed['of']}, {resumed['rounds']} rounds"


def _missing_signs(scenario: Scenario, worker: int, seen: dict[str, Any]) -> Iterator[str]:
    """What else a failure has to leave behind on a worker that is left."""
    victim = scenario.victim
    named = any(line.startswith(f"waiting for worker {victim} in round") for line in seen.get("warnings", ()))
    if scenario.failure == "slow worker" and worker != victim and not named:
        yield f"worker {victim} was not named: {seen.get('warnings')}"
    if scenario.failure != "NaN worker" or seen["error"]:
        return
    averages = scenario.strategy == "PostLocalSGD" and scenario.step < POST_LOCAL_STEPS
    counts = scenario.place == "gradient" or averages or scenario.strategy.startswith("LSGD")
    if set(seen["left_out"]) != ({victim} if counts else set()):
        yield f"left out: {seen['left_out']}"
    if seen["restarted"] != (worker == victim and scenario.place == "gradient" and not averages):
        yield f"restarted: {seen['restarted']}"
    if victim in [leader for step, leader in seen["led"] if 0 <= step - scenario.step < SYNC_EVERY]:
        yield "a worker led whose parameters or loss were not finite"
