"""Plans without training against closed forms, and against what a simulated run really sends."""

from __future__ import annotations

import pytest

from adperception.engine.communication_plan import Hardware, costs_per_steps, costs_until
from adperception.engine.communication_plan_report import plan_report
from adperception.engine.digits import DigitsTask
from adperception.engine.optimizer_methods import METHODS, Setting
from adperception.engine.optimizer_run import RunSpec, run_simulated
from adperception.optim import LSGD, MGRAWA, DataParallel, LocalSGD
from adperception.optim.time_model import CommunicationTime, Link

LINK = Link(1e9, 1e-4)
TIME = CommunicationTime(LINK)
HARDWARE = Hardware(LINK, 0.01)
P = 1_000_000


def test_data_parallel_is_steps_and_all_reduces() -> None:
    (found,) = costs_until(DataParallel(), 4, 16, P, HARDWARE, [10])
    # One more number than parameters: whether the one tensor of the stand-in has a gradient.
    assert found.seconds == pytest.approx(10 * (0.01 + TIME.all_reduce(4 * (P + 1), 4)), rel=1e-12)
    assert found.bytes_sent == 10 * 2 * 3 * 4 * (P + 1)


def test_rounds_cost_control_messages_as_well() -> None:
    before, after = costs_until(LocalSGD(), 4, 8, P, HARDWARE, [7, 16])
    assert before.seconds == pytest.approx(0.07, rel=1e-12)
    assert before.bytes_sent == 0
    per_round = TIME.roll_call(4) + TIME.all_reduce(4 * P, 4) + TIME.commit(4)
    assert after.seconds == pytest.approx(0.16 + 2 * per_round, rel=1e-12)
    assert after.bytes_sent == 2 * 2 * 3 * 4 * P
    (probed,) = costs_until(MGRAWA(), 4, 8, P, HARDWARE, [16])
    longer = TIME.all_reduce(4 * (P + 1), 4) - TIME.all_reduce(4 * P, 4)
    assert probed.seconds == pytest.approx(after.seconds + 2 * (0.01 + longer), rel=1e-9)


def test_no_communication_is_computing_only() -> None:
    (found,) = costs_until(LocalSGD(), 4, None, P, HARDWARE, [50])
    assert (found.seconds, found.bytes_sent) == (pytest.approx(0.5), 0)


def test_per_thousand_steps() -> None:
    found = costs_per_steps(LSGD(), 8, 16, P, HARDWARE)
    per_round = TIME.roll_call(8) + TIME.broadcast(4 * P, 8) + TIME.commit(8)
    assert found.seconds == pytest.approx(10 + 1000 / 16 * per_round, rel=1e-9)
    assert found.bytes_sent == pytest.approx(1000 / 16 * 7 * 4 * P)


@pytest.mark.parametrize("method", ["DataParallel", "EASGD", "LSGD", "LocalSGD", "DPSGD", "MATCHA", "ALDSGD"])
def test_a_plan_and_a_run_send_the_same(method: str) -> None:
    setting = Setting(0.01)
    run = run_simulated(DigitsTask(), RunSpec(method, setting, "fixed", 4, 0, 8, 2, 2, 1.0, "validation", False))
    (planned,) = costs_until(METHODS[method].build(setting), 4, 2, run["parameters"], HARDWARE, [8])
    tensors = 8 * 2 * 3 * 4 * (run["tensors"] - 1) if method == "DataParallel" else 0
    assert run["bytes_sent"] == planned.bytes_sent + tensors


def test_the_report_has_a_table_per_network_and_one_of_bytes() -> None:
    fast = Hardware(Link(1e10, 1e-4), 0.01)
    text = plan_report({"DataParallel": DataParallel(), "LocalSGD": LocalSGD()}, [2, 8], 16, P, [HARDWARE, fast])
    assert "1,000,000 parameters (4.0 MB)" in text
    assert text.count("| workers | 2 | 8 |") == 3
    assert "## Seconds at 1 Gbit/s, 0.1 ms; 10 s of them computing" in text
    assert "| LocalSGD | 0.25 | 0.438 |" in text
    with pytest.raises(ValueError, match="--plan 0 --workers 2"):
        plan_report({"LocalSGD": LocalSGD()}, [2], 16, 0, [HARDWARE])
