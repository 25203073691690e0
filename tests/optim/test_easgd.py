from __future__ import annotations

import pytest
import torch

from adperception.optim.easgd import EASGD

from toy_workers import ToyWorkers, near

CENTER = "state/center"


def center(workers: ToyWorkers) -> torch.Tensor:
    return workers.syncs[0].worker.state["center"][:1]


def test_paper_form() -> None:
    workers = ToyWorkers(EASGD(pull=0.8, order="joint"), [[1], [3]])
    near(workers.step(), [[0.5], [1.5]])
    near(center(workers), [1.6])


def test_code_form() -> None:
    workers = ToyWorkers(EASGD(pull=0.8), [[1], [3]])
    near(workers.step(), [[0.54], [1.62]])
    near(center(workers), [1.44])


@pytest.mark.parametrize("order", ["joint", "step_then_pull"])
def test_without_a_local_step_workers_and_centre_exchange(order: str) -> None:
    workers = ToyWorkers(EASGD(pull=0.8, order=order), [[1], [3]], lr=0.0)  # type: ignore[arg-type]
    near(workers.step(), [[0.6], [1.8]])
    near(center(workers), [1.6])
    near(workers.x.sum() + center(workers), [4.0])


def test_asynchronous_single_worker() -> None:
    workers = ToyWorkers(EASGD(pull=0.4, order="joint"), [[1]])
    near(workers.step(), [[0.5]])
    near(center(workers), [0.4])


def test_spurious_stationary_point() -> None:
    """Double well, rho = 0.4: x = +-sqrt(0.9), centre 0 stays, although the gradient there is not 0."""
    lr, x = 0.01, 0.9**0.5
    strategy = EASGD(pull=2 * lr * 0.4, order="joint")
    workers = ToyWorkers(strategy, [[x], [-x]], lambda x: (x.square() - 1).square().sum(), lr=lr)
    near(workers.step(50), [[0.9486832981], [-0.9486832981]], 1e-9)
    near(center(workers), [0.0])


@pytest.mark.parametrize(("pull", "count", "factor"), [(0.43, 4, 0.8925), (0.1, 4, 0.975), (0.1, 8, 0.9875)])
def test_disagreement_contracts(pull: float, count: int, factor: float) -> None:
    workers = ToyWorkers(EASGD(pull=pull), [[float(i * i)] for i in range(count)], lr=0.0)
    before = workers.x.std()
    assert workers.step().std() / before == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("order", ["joint", "step_then_pull"])
def test_workers_and_centre_keep_their_sum(order: str) -> None:
    workers = ToyWorkers(EASGD(pull=0.43, order=order), torch.randn(5, 3).tolist(), lr=0.0)  # type: ignore[arg-type]
    total = workers.x.sum(0)
    workers.step(7)
    near(workers.x.sum(0) + workers.syncs[0].worker.state["center"][:3], total)


@pytest.mark.parametrize(("lr", "limit"), [(0.5, 0.857143), (1.0, 0.666667), (1.5, 0.4)])
@pytest.mark.parametrize("order", ["joint", "step_then_pull"])
def test_stable_below_the_bound(lr: float, limit: float, order: str) -> None:
    """The round-robin bound on f = x^2 / 2 is sufficient for synchronous rounds too."""
    alpha = 0.999 * limit
    workers = ToyWorkers(EASGD(pull=min(1.0, alpha), order=order), [[1.0], [-2.0], [0.5]], lr=lr)  # type: ignore[arg-type]
    assert workers.step(200).abs().max() < 1


def test_center_mean_has_no_memory() -> None:
    workers = ToyWorkers(EASGD(pull=0.5, divide_pull_by_workers=False, center="mean"), [[1], [3]], lr=0.0)
    near(workers.step(), [[1.5], [2.5]])
    near(center(workers), [2.0])


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"EASGD: pull=1.5 must be 0 or more, at most 1"):
        EASGD(pull=1.5)
    with pytest.raises(ValueError, match=r'EASGD: center="median" is unknown'):
        EASGD(center="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'EASGD: order="late" is unknown'):
        EASGD(order="late")  # type: ignore[arg-type]
