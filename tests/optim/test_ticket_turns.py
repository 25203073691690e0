from __future__ import annotations

import torch

from adperception.optim import LocalSGD, Simulation, SyncOptimizer, Ticket
from adperception.optim.collectives import Note, TakeTicket
from adperception.optim.ticket_turns import TicketTurns
from adperception.optim.worker import Worker


def worker() -> Worker:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return SyncOptimizer(optimizer, LocalSGD(), communicator=Simulation(2).communicators[1]).worker


def take(turns: TicketTurns, who: Worker, ticket: int) -> bool:
    """Take one ticket, whose number is given."""
    requests = turns.take(who, (0, 1))
    try:
        assert isinstance(next(requests), TakeTicket)
        requests.send(ticket)
    except StopIteration as end:
        return bool(end.value)
    raise AssertionError("more than one request")


def test_local_steps_and_rounds() -> None:
    """Two workers, two steps each per round: tickets 0 to 3 are local, 4 and 5 rounds, 6 to 9 local again."""
    turns, who = TicketTurns(Ticket(2)), worker()
    assert [take(turns, who, 1), turns.own] == [True, [1]]
    turns.step_made()
    assert [take(turns, who, 3), turns.own, turns.steps_since_round] == [True, [1, 3], 1]
    turns.step_made()
    assert take(turns, who, 4) is False
    turns.round_done({0: Note(tell={"tickets": [0, 2]}), 1: Note(tell={"tickets": [1, 3]})})
    assert (turns.log, turns.own, turns.steps_since_round) == ([0, 1, 0, 1], [], 0)
    assert [take(turns, who, 6), turns.own] == [True, [4]]


def test_a_counter_that_begins_again_goes_on_after_the_log() -> None:
    turns, who = TicketTurns(Ticket(2)), worker()
    turns.begin_anew([0, 0, 1, 1])
    assert [take(turns, who, 2), turns.own] == [True, [6]]


def test_replay_follows_the_log_and_then_the_counter() -> None:
    turns, who = TicketTurns(Ticket(2, replay=(1, 0, 0, 1))), worker()

    def replayed() -> bool:
        try:
            next(turns.take(who, (0, 1)))
        except StopIteration as end:
            return bool(end.value)
        raise AssertionError("the counter was asked")

    assert [replayed(), turns.own] == [True, [0]]
    turns.step_made()
    assert [replayed(), turns.own] == [True, [0, 3]]
    turns.step_made()
    assert replayed() is False
    who.rounds = 1
    turns.round_done({0: Note(tell={"tickets": [1, 2]}), 1: Note(tell={"tickets": [0, 3]})})
    assert [take(turns, who, 0), turns.own] == [True, [4]]
