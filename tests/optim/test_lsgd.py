from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adperception.optim.easgd import EASGD
from adperception.optim.lsgd import LSGD
from adperception.optim.triggers import EverySteps

from toy_workers import ToyWorkers, near

BOWL_STARTS = [[1.0, 1.0], [2.0, 0.5], [-1.0, 0.25]]


def bowl(x: Tensor) -> Tensor:
    return 0.5 * (x[0] ** 2 + 4 * x[1] ** 2)


def test_joint_form() -> None:
    workers = ToyWorkers(LSGD(pull=0.2, proximal=0, order="joint"), BOWL_STARTS, bowl)
    near(workers.step(), [[0.5, 0.45], [1.2, 0.25], [-0.9, 0.15]])
    assert workers.syncs[0].report.leader == 2


def test_sequential_form() -> None:
    workers = ToyWorkers(LSGD(pull=0.2, proximal=0), BOWL_STARTS, bowl)
    near(workers.step(), [[0.54, 0.51], [1.26, 0.27], [-0.9, 0.15]])


@pytest.mark.parametrize(
    ("order", "expected"),
    [("step_then_pull", [[2.84], [1.4], [-1.0], [1.88]]), ("joint", [[2.8], [1.4], [-1.0], [1.8]])],
)
def test_multi_leader(order: str, expected: list[list[float]]) -> None:
    strategy = LSGD(groups=2, global_every=2, local_pull=0.1, pull=0.2, proximal=0, local_proximal=0, order=order)  # type: ignore[arg-type]
    workers = ToyWorkers(strategy, [[0.0]] * 4, lr=0.0)
    workers.step()  # a round of the groups only; everybody is equal
    workers.put(torch.tensor([[4.0], [2.0], [-1.0], [3.0]], dtype=torch.float64))
    near(workers.step(), expected)
    assert workers.syncs[0].report.leader == 2


def test_groups_alone_between_global_rounds() -> None:
    strategy = LSGD(groups=2, global_every=3, local_pull=0.1, proximal=0, local_proximal=0)
    workers = ToyWorkers(strategy, [[4.0], [2.0], [-1.0], [3.0]], lr=0.0)
    near(workers.step(), [[3.8], [2.0], [-1.0], [2.6]])


@pytest.mark.parametrize("options", [{"groups": 1}, {"groups": 2, "global_every": 1}])
def test_one_group_or_only_global_rounds_is_a_single_leader(options: dict[str, int]) -> None:
    starts = torch.randn(4, 3).tolist()
    single = ToyWorkers(LSGD(), starts, trigger=EverySteps(2)).step(6)
    assert torch.equal(ToyWorkers(LSGD(**options), starts, trigger=EverySteps(2)).step(6), single)  # type: ignore[arg-type]


def test_proximal_terms() -> None:
    """p = 0.1, tau = 4, anchor 0.5."""
    workers = ToyWorkers(LSGD(pull=0.0, proximal=0.1), [[1.0], [1.0]], trigger=EverySteps(4))
    for sync in workers.syncs:
        sync.worker.state["leader"].fill_(0.5)
    for expected in (0.89, 0.793475, 0.7087743125, 0.6344494592):
        near(workers.step(), [[expected]] * 2, 1e-10)


def test_the_other_worker_can_be_stuck_where_the_leader_is_not() -> None:
    """Double well, leader at -1: roots of 4 x (x^2 - 1) + 0.4 (x + 1) = 0."""
    for root in (-1.0, 0.8872983346, 0.1127016654):
        strategy = LSGD(pull=0.4 * 0.001, proximal=0, order="joint")
        workers = ToyWorkers(strategy, [[-1.0], [root]], lambda x: (x.square() - 1).square().sum(), lr=0.001)
        near(workers.step(20), [[-1.0], [root]], 1e-9)


@pytest.mark.parametrize(
    ("losses", "leader"),
    [([1.0, 1.0, 1.0], 0), ([math.nan, 2.0, 1.0], 2), ([math.inf, math.nan, 5.0], 2), ([3.0, 1.0, 1.0], 1)],
)
def test_election(losses: list[float], leader: int) -> None:
    workers = ToyWorkers(LSGD(pull=1.0, proximal=0), [[1.0], [2.0], [3.0]], lr=0.0)
    near(workers.step(losses=losses), [[leader + 1.0]] * 3)
    assert workers.syncs[1].report.leader == leader
    assert workers.syncs[0].report.unhealthy == tuple(i for i, v in enumerate(losses) if not math.isfinite(v))


def test_no_possible_leader_skips_the_round() -> None:
    workers = ToyWorkers(LSGD(pull=1.0, proximal=0), [[1.0], [2.0]], lr=0.0)
    near(workers.step(losses=[math.nan, math.inf]), [[1.0], [2.0]])
    assert workers.syncs[0].rounds_skipped == 1
    near(workers.step(losses=[1.0, 2.0]), [[1.0], [1.0]])


def test_window_is_not_padded() -> None:
    workers = ToyWorkers(LSGD(loss_window=10, pull=0), [[1.0], [1.0]], lr=0.0)
    workers.step(3, losses=[2.0, 2.0])
    assert workers.syncs[0].worker.losses.mean() == 2.0


def test_leader_is_untouched_to_the_bit() -> None:
    torch.manual_seed(1)
    starts = torch.randn(4, 37, dtype=torch.float64)
    workers = ToyWorkers(LSGD(pull=0.3, proximal=0), starts.tolist(), lr=0.0)
    after = workers.step()
    leader = workers.syncs[0].report.leader
    assert leader is not None
    assert torch.equal(after[leader], starts[leader])
    assert not torch.equal(after[leader - 1], starts[leader - 1])


def test_full_pull_makes_everyone_the_leader() -> None:
    workers = ToyWorkers(LSGD(pull=1.0, proximal=0), [[3.0], [1.0], [2.0]], lr=0.0)
    near(workers.step(), [[1.0]] * 3)


def test_lsgd_plus_is_lsgd() -> None:
    """The variant with a corrected mean (x + c (z - a), then towards a + c (z - a)) is algebraically the plain pull."""
    workers = ToyWorkers(LSGD(pull=0.1, proximal=0), [[0.0], [4.0]], lr=0.0)
    near(workers.step(), [[0.0], [3.6]])


def sinc(x: Tensor) -> Tensor:
    r = x.square().sum().sqrt()
    return torch.sin(math.pi * r) / (math.pi * r)


STARTS = [[-6.0, -4.0], [-15.0, -18.0], [20.0, 11.0], [17.0, 8.0]]


@pytest.mark.parametrize(("lr", "pull"), [(0.1, 0.1), (0.1, 0.05), (0.1, 0.2), (0.3, 0.1), (0.3, 0.2), (0.5, 0.2)])
def test_leader_leaves_the_basin_where_the_average_stalls(lr: float, pull: float) -> None:
    leader = ToyWorkers(LSGD(pull=pull, proximal=0, order="joint"), STARTS, sinc, lr=lr)
    leader.step(350)
    for model in leader.models:
        assert float(leader.loss(model).detach()) == pytest.approx(-0.21723, abs=5e-6)
    near(leader.x.norm(dim=1), [1.4303] * 4, 5e-5)
    if (lr, pull) == (0.1, 0.1):
        mean = torch.tensor(STARTS).double().mean(0)
        average = ToyWorkers(EASGD(pull=0.4, order="joint"), STARTS, sinc, lr=lr, center=mean.tolist())
        average.step(700)
        assert float(sinc(average.syncs[0].worker.state["center"][:2])) == pytest.approx(-0.09133, abs=5e-6)
        near(average.x.norm(dim=1), [3.4709] * 4, 5e-5)


def test_descent_of_the_theorem() -> None:
    """Noiseless, m = 1, M = 10: f(x+) - f* <= (1 - m eta) (f(x) - f*) - eta lambda (f(x) - f(z))."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        eigenvalues = torch.cat([torch.tensor([1.0, 10.0]), 1 + 9 * torch.rand(2, generator=generator)]).double()
        x, z = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        value = lambda v, e=eigenvalues: 0.5 * (e * v * v).sum()  # noqa: E731
        if value(z) > value(x):
            x, z = z, x
        eta, pull = 0.1 * torch.rand(2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 10.0])
        after = x - eta * eigenvalues * x - eta * pull * (x - z)
        assert value(after) <= (1 - eta) * value(x) - eta * pull * (value(x) - value(z)) + 1e-12


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"LSGD: pull=-0.1 must be 0 or more, at most 1"):
        LSGD(pull=-0.1)
    with pytest.raises(ValueError, match=r"LSGD: groups=2 does not divide 3 workers"):
        ToyWorkers(LSGD(groups=2), [[0.0]] * 3)
    workers = ToyWorkers(LSGD(), [[0.0]] * 2)
    with pytest.raises(ValueError, match="LSGD elects leaders by their training loss"):
        workers.simulation.run([sync.stepping() for sync in workers.syncs])
