"""Whose turn it is with the trigger ``Ticket``: local steps by a shared counter, logged, or by a log of them."""

from __future__ import annotations

from adperception.optim.collectives import Note, Requests, TakeTicket
from adperception.optim.triggers import Ticket
from adperception.optim.worker import Worker

__all__ = ["TicketTurns"]


class TicketTurns:
    """The tickets of one worker.

    Local steps are numbered over all workers together. A saved run restarts the counter, so numbers begin at ``base``.

    Args:
        trigger: with the log to replay, if any.

    Attributes:
        log: the worker of every local step up to the last round.
        own: the local steps that this worker took since then.
        may_step: whether the last of them is still to be made.
        steps_since_round: local steps that this worker has made since the last round.
    """

    def __init__(self, trigger: Ticket) -> None:
        self._trigger = trigger
        self._base = 0
        self.log: list[int] = []
        self.own: list[int] = []
        self.may_step = False
        self.steps_since_round = 0

    def take(self, worker: Worker, members: tuple[int, ...]) -> Requests:
        """Take one more ticket; the answer is whether it is for a local step, otherwise a round is due."""
        number = self._replayed(worker, len(members))
        if number is None:
            ticket = yield TakeTicket()
            number = -1
            if self._trigger.is_local(ticket, len(members)):
                number = self._base + self._trigger.local_number(ticket, len(members))
        if number >= 0:
            self.own.append(number)
            self.may_step = True
        return self.may_step

    def _replayed(self, worker: Worker, workers: int) -> int | None:
        """The next local step of this worker in the log that is replayed, -1 for a round, ``None`` where it ends."""
        log, group = self._trigger.replay or (), self._trigger.steps * workers
        begin = worker.rounds * group
        if begin + group > len(log):
            self._base = max(self._base, begin)
            return None
        after = self.own[-1] if self.own else begin - 1
        own = (n for n in range(max(after + 1, begin), begin + group) if log[n] == worker.worker_id)
        return next(own, -1)

    def step_made(self) -> None:
        """The local step was made."""
        self.may_step = False
        self.steps_since_round += 1

    def round_done(self, notes: dict[int, Note]) -> None:
        """After a round, at whose roll call all workers told their local steps."""
        numbers = {number: member for member, note in notes.items() for number in note.tell["tickets"]}
        self.log.extend(numbers[number] for number in sorted(numbers))
        self.own, self.steps_since_round = [], 0

    def begin_anew(self, log: list[int]) -> None:
        """The shared counter begins at 0 again, after ``log``."""
        self.log, self.own, self.may_step, self._base = log, [], False, len(log)
        self.steps_since_round = 0
