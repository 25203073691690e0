"""SyncOptimizer: any torch optimizer, with a strategy that brings the workers together from time to time."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adperception.optim.alike import checksums, compare_replicas, mend, same_start
from adperception.optim.background import Background
from adperception.optim.collectives import (
    Commit,
    Communicator,
    Note,
    Requests,
    RollCall,
    RoundFailedError,
)
from adperception.optim.flat_params import FlatParams, chunks
from adperception.optim.strategy import Strategy
from adperception.optim.ticket_turns import TicketTurns
from adperception.optim.triggers import EverySteps, Ticket, Trigger
from adperception.optim.worker import RoundReport, Worker

__all__ = ["SyncOptimizer"]

_LOG = logging.getLogger(__name__)


class SyncOptimizer(torch.optim.Optimizer):
    """A local optimizer whose parameters meet those of the other workers in rounds.

    Every worker trains on its own data with ``optimizer``; when ``trigger`` says so, ``strategy`` brings them together.
    It behaves as a torch optimizer: schedulers, ``zero_grad``, gradient accumulation and clipping, ``GradScaler`` and
    parameter groups work as they do on ``optimizer``, whose ``param_groups`` and ``state`` these are.

    The parameters become views into one vector (``FlatParams``): move the model to its device before. Make it on all
    workers; they compare names and shapes and start from the parameters (and buffers, with a model) of the first one.

    Args:
        optimizer: the local optimizer. Only parameters that require a gradient take part.
        strategy: what happens in a round.
        trigger: when there is one.
        model: for strategies with a probe, for names in messages, and so that buffers start equal and come back where a
            worker's parameters were not finite.
        communicator: how to reach the other workers; ``None``: the world group of ``torch.distributed``.
        probe: called with the model, computes the loss of a mini-batch and its gradients. Gradients, batch-norm
            statistics and random generators are put back afterwards.
        allow_single_worker: run with one worker as well; no round then happens (but for EASGD).
        check_replicas_every: rounds between two comparisons of what must be equal on all workers; 0: never.
        overlap: communicate while the next gradient is computed. For strategies with ``order="joint"``, whose rounds
            need the parameters before the step only, so nothing is stale; elections go by the losses before it.

    Attributes:
        strategy: as given.
        trigger: as given.
        worker: parameters, memory and bookkeeping of this worker.
        rounds_skipped: rounds that failed or had nobody to pull to.
        skipped_steps: local steps left out by a ``GradScaler``.
        left_out: how often each worker, by its id, was left out because its parameters, its loss or (where gradients
            are averaged) its gradients were not finite.
        tell: plain values that this worker tells the others at the next roll call.
        after_round: called, if set, after every round that was committed, before anything else is done. With ``Ticket``
            it is the only place where all workers can save after the same round: a slow worker may go through several
            rounds in one step.

    Raises:
        ValueError: for one worker (unless allowed), workers with other parameters, or a missing model or probe.
    """

    # GradScaler then calls ``step`` also where it found infinities, so that all workers count the same steps.
    _step_supports_amp_scaling: ClassVar[bool] = True
    # What it found is set on the instance for the time of a step.
    found_inf: Tensor | None = None

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        strategy: Strategy,
        trigger: Trigger | None = None,
        *,
        model: nn.Module | None = None,
        communicator: Communicator | None = None,
        probe: Callable[[nn.Module], Any] | None = None,
        allow_single_worker: bool = False,
        check_replicas_every: int = 100,
        overlap: bool = False,
    ) -> None:
        # Optimizer.__init__ is not called: groups and state are those of ``optimizer``, and so are its step hooks.
        self.optimizer, self.strategy, self.trigger = optimizer, strategy, trigger or EverySteps(16)
        if strategy.needs_probe and (model is None or probe is None):
            missing = " and ".join(name for name, given in (("model", model), ("probe", probe)) if given is None)
            raise ValueError(
                f"{strategy.name} measures gradients with a probe: pass {missing} to SyncOptimizer (a probe is a "
                "function that computes the loss of one mini-batch with the model and calls backward)."
            )
        if overlap and not strategy.is_joint:
            raise ValueError(
                f'overlap=True needs rounds that do not depend on the local step: set order="joint", if '
                f"{strategy.name} has that option."
            )
        if communicator is None:
            from adperception.optim.torch_communicator import TorchCommunicator

            communicator = TorchCommunicator()
        workers = communicator.members
        if len(workers) < 2 and not allow_single_worker:
            raise ValueError(
                f"{strategy.name} needs at least two workers, but there is {len(workers)}. Start several with "
                "torchrun --nproc-per-node=N, or pass allow_single_worker=True to train with the local optimizer alone."
            )
        self._communicator = communicator
        self._names = {} if model is None else {id(p): name for name, p in model.named_parameters()}
        params = FlatParams(self._trainable())
        self.worker = Worker(
            communicator.worker_id,
            workers,
            params,
            optimizer,
            extra=strategy.extra(len(workers), len(params.segments)),
            loss_window=strategy.losses_averaged,
            model=model,
            probe=probe,
        )
        self.check_replicas_every = check_replicas_every
        self.rounds_skipped = 0
        self.skipped_steps = 0
        self.left_out: Counter[int] = Counter()
        self.tell: dict[str, Any] = {}
        self._turns = TicketTurns(self.trigger) if isinstance(self.trigger, Ticket) else None
        self._overlap = overlap and not communicator.is_simulated
        self._ahead: Background[bool] | None = None
        self._kept_displacement: Tensor | None = None
        self.after_round: Callable[[], None] | None = None
        self._swapped = False
        self._started = False
        self._sync_every = self.trigger.steps_per_round(len(workers))
        self._averages_gradients = strategy.communicates_before_step
        self._needs_loss, self._has_step_work = strategy.needs_loss, strategy.has_step_work
        if not communicator.is_simulated:
            communicator.run(self._start())

    # What makes it a torch optimizer.

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Those of the local optimizer."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """That of the local optimizer."""
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """Those of the local optimizer."""
        return self.optimizer.defaults

    def __getattr__(self, name: str) -> Any:
        # Step hooks and the like.
        if name == "optimizer":
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("SyncOptimizer cannot be copied or pickled; save state_dict().")

    def __repr__(self) -> str:
        return f"SyncOptimizer({self.optimizer!r}, {self.strategy!r}, {self.trigger!r})"

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the local optimizer."""
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Callable[[], Any] | None = None, *, loss: Tensor | float | None = None) -> Any:
        """One local step and, if it is due, a round.

        Args:
            closure: computes the loss and its gradients anew, for local optimizers that need it. However often it is
                called, this is one step.
            loss: the loss of this step's mini-batch, for strategies that elect by it; not needed with a closure that
                returns it.

        Returns:
            What the local optimizer returns.

        Raises:
            ValueError: if the strategy needs losses and got none.
        """
        # Most steps go no further than this; it has to cost next to nothing (benchmarks/distributed_overhead.py).
        steps = self.worker.steps
        plain = self._started and not self._swapped and self._turns is None
        if plain and self._averages_gradients:
            plain = not self.strategy.wants_gradients(steps)
        if plain and not self.trigger.is_due(steps + 1, len(self.members)):
            result = self._local_step(closure, loss)
        else:
            result = self._communicator.run(self.stepping(closure, loss=loss))
        if self._overlap:
            self._begin_next_round()
        return result

    def stepping(self, closure: Callable[[], Any] | None = None, *, loss: Tensor | float | None = None) -> Requests:
        """``step`` as a generator of requests, for ``Simulation``."""
        if self._swapped:
            raise RuntimeError("the consensus model is swapped in; leave consensus() before the next step.")
        yield from self.starting()
        if self._turns is not None:
            yield from self._until_turn(self._turns)
        steps = self.worker.steps + 1
        alone = self._is_alone
        due = not alone and self.trigger.is_due(steps, len(self.members))
        if not alone and self.strategy.wants_gradients(steps - 1):
            yield from self._averaged_gradients(closure)
        joint, ahead = due and self.strategy.is_joint, self._ahead is not None
        if joint:
            if self._ahead is not None:
                joint, self._ahead = self._ahead.result(), None
            if loss is not None:
                self.worker.losses.add(loss)
            if not ahead:
                joint = yield from self._round(self._begin_round(), deferred=True)
            self.worker.settle()
            result = self._local_step(closure, loss, noted=loss is not None)
        else:
            result = self._local_step(closure, loss)
        if joint:
            yield from self._finish_joint()
        elif due and not self.strategy.is_joint:
            yield from self._round(self._begin_round(), deferred=False)
        if self._turns is not None:
            # The next ticket is taken now: a worker that is to join a round should not keep the others waiting.
            yield from self._until_turn(self._turns)
        return result

    def starting(self) -> Requests:
        """Start from equal values, for ``Simulation``; over a real communicator the constructor does it."""
        if not self._started:
            yield from self._start()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters on every worker at the same step; all go on from those of the first worker."""
        self.optimizer.add_param_group(param_group)
        self.adopt_new_parameters()

    def adopt_new_parameters(self) -> None:
        """Take in parameters of the local optimizer that require a gradient since lately (unfrozen ones)."""
        self._communicator.run(self.adopting())

    @torch.no_grad()
    def adopting(self) -> Requests:
        """``adopt_new_parameters`` as a generator of requests, for ``Simulation``."""
        yield from self.starting()
        params = self.worker.params
        known = {id(p) for p in params.parameters}
        fresh = [(name, p) for name, p in self._trainable() if id(p) not in known]
        if not fresh:
            return
        moves = params.extend(fresh)
        self.worker.resize_extra(self.strategy.extra(len(self.worker.workers), len(params.segments)))
        yield from same_start(self.worker, self.strategy)
        self.strategy.resized(self.worker, moves)

    # Saving and restoring.

    def state_dict(self) -> dict[str, Any]:
        """The local optimizer's state, and the strategy's; both belong to this worker."""
        tensors, values = self.sync_state()
        return {"optimizer": self.optimizer.state_dict(), "tensors": tensors, "values": values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What ``state_dict`` gave, on the same worker of equally many."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.load_sync_state(state_dict["tensors"], state_dict["values"])

    def sync_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What belongs to strategy and trigger: tensors by name, and plain values."""
        worker = self.worker
        if self._turns is not None and self._turns.steps_since_round:
            raise RuntimeError(
                "with the trigger Ticket a run can be saved right after a round only, and this worker has done "
                f"{self._turns.steps_since_round} local steps since the last one. Save in SyncOptimizer.after_round."
            )
        tensors = {f"state/{name}": tensor for name, tensor in worker.state.items()}
        tensors["losses"] = worker.losses.state()
        ahead = self._ahead is not None and self._ahead.result()
        if ahead and worker.displacement is not None:
            tensors["displacement"] = worker.displacement
        values = {
            "strategy": self.strategy.name,
            "worker_id": worker.worker_id,
            "members": list(self.members),
            "workers": list(worker.workers),
            "steps": worker.steps,
            "ahead": None if self._ahead is None else ahead,
            "rounds": worker.rounds,
            "rounds_skipped": self.rounds_skipped,
            "skipped_steps": self.skipped_steps,
            "left_out": {str(member): count for member, count in self.left_out.items()},
            "ticket_log": self.ticket_log,
        }
        return tensors, values

    def load_sync_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """What ``sync_state`` gave.

        Raises:
            ValueError: if it is another strategy's, another worker's, of other workers, or does not fit the parameters.
        """
        worker = self.worker
        here = (self.strategy.name, worker.worker_id, list(self.members))
        saved = (values["strategy"], values["worker_id"], values["members"])
        if here != saved:
            raise ValueError(
                "the saved state is of {} as worker {} of {}; this is {} as worker {} of {}. Resume with the same "
                "strategy and workers, or start new ones from the consensus model.".format(*saved, *here)
            )
        for name, tensor in worker.state.items():
            found = tensors.get(f"state/{name}")
            if found is None or found.shape != tensor.shape:
                raise ValueError(
                    f'{self.strategy.name}: state "{name}" should have the shape {tuple(tensor.shape)}, the saved one '
                    f"has {None if found is None else tuple(found.shape)}; it is of another model or other options."
                )
        for name, tensor in worker.state.items():
            tensor.copy_(tensors[f"state/{name}"])
        worker.losses.restore(tensors["losses"])
        worker.steps, worker.rounds = values["steps"], values["rounds"]
        self.rounds_skipped, self.skipped_steps = values["rounds_skipped"], values["skipped_steps"]
        self.left_out = Counter({int(member): count for member, count in values["left_out"].items()})
        if self._turns is not None:
            self._turns.begin_anew(list(values["ticket_log"]))
        worker.params.gather()
        self.wait()
        self._ahead = None if values["ahead"] is None else Background(lambda: bool(values["ahead"]))
        worker.displacement = tensors.get("displacement")
        self._started = True

    def restart_from(self, parameters: Tensor) -> None:
        """Begin anew from parameters that are the same on all workers ((P,), a consensus): no momentum, fresh state."""
        self.worker.vector.copy_(parameters)
        self.worker.params.scatter()
        self.optimizer.state.clear()
        self.worker.losses.clear()
        self.worker.state.clear()
        self.strategy.start(self.worker)

    def skip_step(self) -> None:
        """Count a step without an update, so that this worker keeps its place in the rounds."""
        self.found_inf = torch.ones(())
        try:
            self.step(loss=math.nan)
        finally:
            del self.found_inf

    def wait(self) -> None:
        """Until the communication that goes on in the background, if any, is done; before using the communicator."""
        if self._ahead is not None:
            self._ahead.result()

    # What can be looked at.

    @property
    def ticket_log(self) -> list[int]:
        """With ``Ticket``, the worker of every local step up to the last round, in the order of the tickets."""
        return [] if self._turns is None else self._turns.log

    @property
    def communicator(self) -> Communicator:
        """How the other workers are reached."""
        return self._communicator

    @property
    def members(self) -> tuple[int, ...]:
        """Worker ids of all that are left."""
        return self._communicator.members

    @property
    def report(self) -> RoundReport:
        """What the last round did."""
        return self.worker.report

    @property
    def memory_bytes(self) -> dict[str, int]:
        """Bytes held beyond parameters and local optimizer: the strategy's own state and the shared scratch memory."""
        worker = self.worker
        state = sum(t.numel() * t.element_size() for t in worker.state.values())
        return {"state": state, "scratch": worker.scratch.numel() * worker.scratch.element_size()}

    def disagreement(self) -> float:
        """Mean squared distance of the workers to what they were pulled to, in the round before the last one."""
        distances = [note.distance for note in self.worker.notes.values() if not math.isnan(note.distance)]
        return sum(distances) / len(distances) if distances else math.nan

    # The consensus model; see ``consensus.py``.

    @torch.no_grad()
    def swapping_in(self) -> Requests:
        """Put the consensus into the live parameters and keep the worker's own in the scratch memory."""
        yield from self.starting()
        self.wait()
        displacement = self.worker.displacement
        self._kept_displacement = None if displacement is None else displacement.clone()
        self.worker.params.gather()
        self.worker.notes = yield RollCall(self._note({}))
        found = yield from self.strategy.consensus(self.worker)
        yield Commit()
        if not found:
            raise RuntimeError(f"{self.strategy.name}: no worker has finite parameters, so there is no consensus.")
        self._swapped = True
        self._exchange()

    @torch.no_grad()
    def swap_out(self) -> None:
        """Put the worker's own parameters back."""
        if self._swapped:
            self._exchange()
            self._swapped = False
            self.worker.displacement = self._kept_displacement
            self._kept_displacement = None

    def _exchange(self) -> None:
        for live, kept in chunks(self.worker.vector, self.worker.scratch_vector):
            live_values = live.clone()
            live.copy_(kept)
            kept.copy_(live_values)
        self.worker.params.scatter()

    # How a step is made.

    @property
    def _is_alone(self) -> bool:
        return len(self.members) < 2 and not self.strategy.runs_alone

    def _local_step(
        self, closure: Callable[[], Any] | None, loss: Tensor | float | None, *, noted: bool = False
    ) -> Any:
        worker = self.worker
        if self.found_inf is not None and self._skips_for_scaler(self.found_inf):
            result = None
        else:
            result = self.optimizer.step() if closure is None else self.optimizer.step(closure)
        if loss is None and isinstance(result, (Tensor, float)):
            loss = result
        if loss is not None and not noted:
            worker.losses.add(loss)
        worker.steps += 1
        if self._turns is not None:
            self._turns.step_made()
        if loss is None and self._needs_loss and not self._is_alone:
            raise ValueError(
                f"{self.strategy.name} elects leaders by their training loss: call step(loss=loss), or "
                "step(closure) with a closure that returns it."
            )
        if self._has_step_work and not self._is_alone:
            self.strategy.after_step(worker, self._sync_every)
        return result

    @torch.no_grad()
    def _skips_for_scaler(self, found_inf: Tensor) -> bool:
        """Whether a GradScaler found infinities; otherwise gradients are unscaled, unless they are already."""
        if float(found_inf):
            self.skipped_steps += 1
            return True
        self._unscale()
        return False

    @torch.no_grad()
    def _unscale(self) -> None:
        """Divide the gradients by a GradScaler's factor, unless that was done."""
        scale = self.__dict__.get("grad_scale")
        if scale is not None:
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            torch._foreach_div_(gradients, float(scale))
            self.grad_scale = None

    @torch.no_grad()
    def _averaged_gradients(self, closure: Callable[[], Any] | None) -> Requests:
        if closure is not None:
            raise ValueError(
                f"{self.strategy.name} averages gradients before the step, so it cannot take a closure: compute the "
                "gradients first and call step(loss=loss)."
            )
        worker = self.worker
        self._unscale()
        healthy = worker.gradients_are_finite()
        while not self._is_alone:
            try:
                worker.notes = yield RollCall(dataclasses.replace(self._note({}), healthy=healthy))
                yield from self.strategy.before_step(worker)
            except RoundFailedError:
                self._after_failure()
                continue
            self.left_out.update(_not_in(worker.healthy, worker.members))
            if worker.healthy and "found_inf" in self.__dict__:
                self.found_inf = torch.zeros(())  # what this worker found is not in the mean
            return

    @torch.no_grad()
    def _begin_round(self) -> Note:
        """What this worker says at the roll call of a round."""
        self.worker.params.gather()
        self.worker.params.check(self._trainable())
        return self._note(checksums(self.worker, self.strategy, self.check_replicas_every), elects=True)

    @torch.no_grad()
    def _round(self, note: Note, *, deferred: bool) -> Requests:
        """One round; the answer is whether it was committed."""
        worker = self.worker
        worker.deferred = deferred
        try:
            worker.notes = yield RollCall(note)
            worker.report = RoundReport(worker.members, _not_in(worker.healthy, worker.members))
            compare_replicas(worker, self.strategy)
            yield from mend(worker)
            yield from self.strategy.round(worker)
        except RoundFailedError as error:
            worker.drop_displacement()
            self._after_failure()
            _LOG.warning("round %d did not happen: %s", worker.rounds + 1, error)
            return False
        finally:
            worker.deferred = False
        self._round_done()
        return True

    def _begin_next_round(self) -> None:
        """If a round belongs to the next step, communicate from now on, while the caller computes the gradient."""
        if not self._is_alone and self.trigger.is_due(self.worker.steps + 1, len(self.members)):
            note = self._begin_round()  # in this thread, which then goes on to change losses and gradients
            self._ahead = Background(lambda: bool(self._communicator.run(self._round(note, deferred=True))))

    @torch.no_grad()
    def _finish_joint(self) -> Requests:
        self.worker.apply_displacement()
        try:
            yield from self.strategy.finish(self.worker)
        except RoundFailedError as error:
            self._after_failure()
            _LOG.warning("the second half of round %d did not happen: %s", self.worker.rounds, error)
        self.worker.params.scatter()

    def _round_done(self) -> None:
        worker = self.worker
        worker.params.scatter()
        worker.rounds += 1
        worker.losses.round_done()
        self.rounds_skipped += worker.report.skipped
        self.left_out.update(worker.report.unhealthy)
        if self._turns is not None:
            self._turns.round_done(worker.notes)
        self._sync_every = self.trigger.steps_per_round(len(self.members))
        if self.after_round is not None:
            self.after_round()

    def _after_failure(self) -> None:
        self.rounds_skipped += 1
        if self._turns is not None:
            self._turns.begin_anew(self._turns.log)

    def _until_turn(self, turns: TicketTurns) -> Requests:
        """Take tickets until one allows a local step; join a round for every other one."""
        while not turns.may_step and not self._is_alone:
            if not (yield from turns.take(self.worker, self.members)):
                yield from self._round(self._begin_round(), deferred=False)

    def _note(self, tell: dict[str, Any], *, elects: bool = False) -> Note:
        if self._turns is not None:
            tell["tickets"] = self._turns.own
        loss = self.strategy.election_loss(self.worker) if elects else self.worker.losses.mean()
        return self.worker.note(loss, {**tell, **self.tell})

    # Workers that belong together.

    def _start(self) -> Requests:
        yield from same_start(self.worker, self.strategy)
        self.strategy.start(self.worker)
        self._started = True

    def _trainable(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Names and parameters of the local optimizer that require a gradient, shared ones once."""
        seen: set[int] = set()
        for number, group in enumerate(self.optimizer.param_groups):
            for position, parameter in enumerate(group["params"]):
                if parameter.requires_grad and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield self._names.get(id(parameter), f"group {number}, parameter {position}"), parameter


def _not_in(some: Sequence[int], of: Sequence[int]) -> tuple[int, ...]:
    return tuple(member for member in of if member not in some)
