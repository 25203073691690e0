"""How workers agree through a store, without a process group: roll calls and votes.

A decision is one key that is written once, with ``compare_set``: whoever comes first decides, everybody else reads. So
a worker that gives up waiting and a worker that arrives at the same moment see the same outcome.

Counters and notes are kept over all roll calls (votes) of one object, decisions of two ago are deleted by whoever comes
first: a member that waits for decision k has read k - 1, and k - 1 was decided when all members had read k - 2. The
last two stay, so that an excluded worker finds out, however late.
"""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.distributed.distributed_c10d import PrefixStore

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["Present", "RollCalls", "Verdict", "Votes", "fingerprint", "name_workers"]

_log = logging.getLogger(__name__)
_MISSING = "?"


def name_workers(ids: Sequence[int]) -> str:
    """``"worker 2"``, ``"workers 0, 2"``, for messages."""
    return f"worker{'s' * (len(ids) != 1)} {', '.join(map(str, ids))}" if ids else "no worker"


def fingerprint(ids: Sequence[int]) -> str:
    """A short name of a set of workers for keys, which a store limits in length."""
    return f"{len(ids)}-{zlib.crc32(repr(tuple(ids)).encode()):08x}"


@dataclass(frozen=True)
class Present:
    """The outcome of a roll call, the same for everybody who reads it.

    Attributes:
        notes: what each worker said, by worker id, ascending; its keys are who takes part.
        decided_at: Unix time of the worker that decided, seconds.
    """

    notes: dict[int, Any]
    decided_at: float


@dataclass(frozen=True)
class Verdict:
    """The outcome of a vote, the same for everybody who reads it.

    Attributes:
        agreed: whether all voted for it.
        reason: if not, what the first worker that refused or gave up waiting said.
        leaver: the worker that will not take part in anything further, if it said so.
    """

    agreed: bool
    reason: str = ""
    leaver: int | None = None


class RollCalls:
    """Roll calls of a fixed set of workers. After one that not all took part in, a new set needs new roll calls.

    A roll call costs a worker three operations on the store and those for waiting, and the last one a few more.

    Args:
        store: keys go below the prefix, which belongs to these roll calls alone.
        prefix: see ``store``.
        worker_id: this worker.
        expected: worker ids, this one included, in ascending order.
    """

    def __init__(self, store: Store, prefix: str, worker_id: int, expected: Sequence[int]) -> None:
        self._store = PrefixStore(prefix, store)
        self._worker_id = worker_id
        self._expected = tuple(expected)
        self._held = 0

    def hold(self, note: Any, limit_seconds: float, what: str) -> Present:
        """Wait for all, or decide to go on with those who are there.

        At half of the limit a warning names who is missing.

        Args:
            note: JSON values for the others; floats arrive as the same bits, NaN and infinities included.
            limit_seconds: how long to wait.
            what: for the warning, e.g. ``"round 17"``.

        Returns:
            Who takes part; this worker is not among them if it was too late.
        """
        number, self._held = self._held, self._held + 1
        key = f"decision/{number}"
        self._store.set(f"note/{self._worker_id}", f"{number} {json.dumps(note)}")
        place = self._store.add("arrived", 1) - number * len(self._expected)
        if place >= len(self._expected):
            return self._decide(key, number)
        if place == 1 and number >= 2:
            self._store.delete_key(f"decision/{number - 2}")
        decision = _await(self._store, key, limit_seconds / 2)
        if decision is None:
            missing = [other for other in self._expected if self._note(other, number) is None]
            _log.warning("waiting for %s in %s since %.1f s", name_workers(missing), what, limit_seconds / 2)
            decision = _await(self._store, key, limit_seconds / 2)
        return self._decide(key, number) if decision is None else _present(decision)

    def _decide(self, key: str, number: int) -> Present:
        """Propose to go on with who is there now; what was decided."""
        notes = [(other, self._note(other, number)) for other in self._expected]
        said = ", ".join(f'"{other}": {note}' for other, note in notes if note is not None)
        proposal = f'{{"at": {time.time()!r}, "notes": {{{said}}}}}'
        return _present(self._store.compare_set(key, "", proposal).decode())

    def _note(self, worker_id: int, number: int) -> str | None:
        """What a worker said in this roll call, as JSON."""
        of, _, note = (_peek(self._store, f"note/{worker_id}") or "").partition(" ")
        return note if of == str(number) else None


class Votes:
    """Votes that everybody has to agree in. After one that failed, new votes need a new object.

    Args:
        store: keys go below the prefix, which belongs to these votes alone.
        prefix: see ``store``.
        worker_id: this worker.
        voters: how many workers vote.
    """

    def __init__(self, store: Store, prefix: str, worker_id: int, voters: int) -> None:
        self._store = PrefixStore(prefix, store)
        self._worker_id = worker_id
        self._voters = voters
        self._held = 0

    def agree(self, limit_seconds: float) -> Verdict:
        """Vote yes and wait until all have, or somebody refused; refuse when the limit is over."""
        return self._await_verdict(self._store.add("yes", 1) - self._held * self._voters, limit_seconds)

    def refuse(self, reason: str, *, leaves: bool = False) -> Verdict:
        """Vote no: everybody who waits is told at once.

        Args:
            reason: for the others' messages.
            leaves: this worker takes part in nothing further, and nobody needs to wait for it.
        """
        verdict = {"reason": f"worker {self._worker_id}: {reason}", "leaver": self._worker_id if leaves else None}
        return _verdict(self._store.compare_set(f"decision/{self._held}", "", json.dumps(verdict)).decode())

    def _await_verdict(self, place: int, limit_seconds: float) -> Verdict:
        """The outcome for the worker that voted as number ``place``."""
        key = f"decision/{self._held}"
        if place < self._voters:
            if place == 1 and self._held >= 2:
                self._store.delete_key(f"decision/{self._held - 2}")
            decision = _await(self._store, key, limit_seconds)
            if decision is None:
                return self.refuse(f"not all of {self._voters} workers got to the end within {limit_seconds:g} s")
        else:
            decision = self._store.compare_set(key, "", "{}").decode()
        verdict = _verdict(decision)
        self._held += 1
        return verdict


def _present(decision: str) -> Present:
    values = json.loads(decision)
    return Present({int(worker): note for worker, note in values["notes"].items()}, values["at"])


def _verdict(decision: str) -> Verdict:
    values = json.loads(decision)
    return Verdict(False, values["reason"], values["leaver"]) if values else Verdict(True)


def _peek(store: Store, key: str) -> str | None:
    """The value of a key or ``None``, in one operation that never blocks.

    ``compare_set`` changes nothing if the key has another value than expected, and returns the expected value if there
    is no such key.
    """
    value: str = store.compare_set(key, _MISSING, _MISSING).decode()
    return None if value == _MISSING else value


def _await(store: Store, key: str, seconds: float) -> str | None:
    """The value of a key as soon as it is there, or ``None`` when the time is over.

    It looks again and again, after pauses of 3 % of what it has waited, 20 ms at most. ``store.wait`` is not for waits
    that may end without the key: when its time is over, ``TCPStore`` looks up the name of its own address for a log
    line, which takes many seconds where name servers do not answer, and it wakes up when others only compare the key.
    """
    start = time.monotonic()
    while (value := _peek(store, key)) is None:
        waited = time.monotonic() - start
        if waited >= seconds:
            return None
        time.sleep(min(max(5e-5, 0.03 * waited), 0.02, seconds - waited))
    return value
