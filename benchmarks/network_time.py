"""Times and bytes of gloo's collectives on rate-limited links, against the model of ``adperception.optim``.

Workers run in network namespaces (``network_namespaces.py``) with 2, 3 and 4 hosts, once per rate. The time model is
calibrated on one payload at one rate; all other payloads and rates are predicted. The aim: within 25 % for all-reduce
and broadcast, 50 % for the exchange with neighbours on a ring; interface bytes, summed over the ranks, within 2 % of
the formulas. Exits with 1 where one is missed. Needs root: ``sudo python benchmarks/network_time.py [--output FILE]``
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from network_namespaces import SWITCH_ADDRESS, Hosts, require_root

from adperception.optim.time_model import CommunicationTime, Link, Observation
from adperception.optim.traffic import all_reduce_bytes, broadcast_bytes, mix_bytes

REPOSITORY = Path(__file__).resolve().parent.parent
WORKER = REPOSITORY / "benchmarks" / "network_worker.py"
STORE = f"{SWITCH_ADDRESS}:29500"
COLLECTIVES = ("all_reduce", "broadcast", "mix")
TIME_TOLERANCE = {"all_reduce": 0.25, "broadcast": 0.25, "mix": 0.5}
BYTES_TOLERANCE = 0.02
SETTLE_SECONDS = 0.05  # for the last acknowledgements


@dataclass(frozen=True)
class Measurement:
    """One collective, repeated.

    Attributes:
        seconds: of each repetition, from the last worker's begin to the last worker's end.
        sent: bytes per repetition that left each rank's interface, headers and barriers included.
    """

    collective: str
    workers: int
    rate_mbit: float
    nbytes: int
    seconds: tuple[float, ...]
    sent: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def neighbours(self) -> int:
        return min(self.workers - 1, 2)

    @property
    def expected_sent(self) -> tuple[int, ...]:
        if self.collective == "all_reduce":
            return all_reduce_bytes(self.nbytes, self.workers)
        if self.collective == "broadcast":
            return broadcast_bytes(self.nbytes, self.workers)
        return (mix_bytes(self.nbytes, self.neighbours),) * self.workers

    @property
    def excess_sent(self) -> float:
        """How much more than expected all ranks sent together, as a fraction."""
        return sum(self.sent) / sum(self.expected_sent) - 1

    @property
    def largest_excess_of_a_rank(self) -> float:
        """As a fraction of the tensor, because a rank may have nothing to send."""
        differences = (abs(a - b) for a, b in zip(self.sent, self.expected_sent, strict=True))
        return max(differences) / self.nbytes

    def modelled(self, model: CommunicationTime) -> float:
        if self.collective == "mix":
            return model.mix(self.nbytes, self.neighbours)
        return float(getattr(model, self.collective)(self.nbytes, self.workers))

    def observation(self) -> Observation:
        peers = self.neighbours if self.collective == "mix" else self.workers
        return Observation(self.collective, self.nbytes, peers, self.median)


class Workers:
    """The processes of one group, which wait for commands."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        options: dict[str, Any] = dict(
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=1,
            # The warning that a host without a name server has no name.
            env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
        )
        store = hosts.run_on_switch([*self._command(0), "--serve"], **options)
        self._answer(store)
        self.processes = [hosts.run(rank, self._command(rank), **options) for rank in range(hosts.count)]
        for process in self.processes:
            self._answer(process)

    def measure(self, collective: str, nbytes: int, repeats: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Seconds of each repetition; bytes per repetition and rank."""
        before = [self.hosts.bytes_sent(rank) for rank in range(self.hosts.count)]
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(dict(collective=collective, nbytes=nbytes, repeats=repeats)) + "\n")
        times = [self._answer(process) for process in self.processes]
        time.sleep(SETTLE_SECONDS)
        sent = tuple((self.hosts.bytes_sent(rank) - count) / repeats for rank, count in enumerate(before))
        return tuple(
            max(end for _, end in repetition) - max(begin for begin, _ in repetition)
            for repetition in zip(*times, strict=True)
        ), sent

    def _command(self, rank: int) -> list[str]:
        numbers = ["--rank", str(rank), "--workers", str(self.hosts.count)]
        return [sys.executable, str(WORKER), *numbers, "--store", STORE]

    @staticmethod
    def _answer(process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {process.wait()}; its error is above")
        return json.loads(line)


def measure(workers: int, rate_mbit: float, payloads: Sequence[int], repeats: int) -> tuple[list[Measurement], float]:
    """All collectives at one rate; and the median seconds of a round trip to the store, all workers at once."""
    found = []
    with Hosts(workers, rate_mbit) as hosts:
        group = Workers(hosts)
        for collective in COLLECTIVES:
            group.measure(collective, 4096, 3)  # connections are made when first used
            for nbytes in payloads:
                seconds, sent = group.measure(collective, nbytes, repeats)
                found.append(Measurement(collective, workers, rate_mbit, nbytes, seconds, sent))
        round_trip = statistics.median(group.measure("round_trip", 4, 20 * repeats)[0])
    return found, round_trip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--rates-mbit", type=float, nargs="+", default=[200.0, 1000.0])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1.0, 4.0, 8.0, 16.0])
    parser.add_argument("--calibrate", type=float, nargs=2, default=[1.0, 1000.0], metavar=("MEGABYTES", "RATE_MBIT"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, help="JSON with every number")
    arguments = parser.parse_args(argv)
    payloads = [int(megabytes * 1e6) // 4 * 4 for megabytes in arguments.megabytes]
    payload, rate = int(arguments.calibrate[0] * 1e6) // 4 * 4, arguments.calibrate[1]
    if payload not in payloads or rate not in arguments.rates_mbit:
        parser.error("--calibrate: a payload of --megabytes and a rate of --rates-mbit")
    require_root()

    found: list[Measurement] = []
    round_trips: dict[int, list[float]] = {}
    for rate_mbit in arguments.rates_mbit:
        for workers in arguments.workers:
            measurements, round_trip = measure(workers, rate_mbit, payloads, arguments.repeats)
            found += measurements
            round_trips.setdefault(workers, []).append(round_trip)
    # On the way and back, and while the store answers the others.
    request_seconds = statistics.median(s / (workers + 1) for workers, all_ in round_trips.items() for s in all_)
    # Neighbours are predicted from all-reduce and broadcast: how TCP shares a link among connections has no constant.
    calibrated_on = [s for s in found if (s.nbytes, s.rate_mbit) == (payload, rate) and s.collective != "mix"]
    fitted = CommunicationTime(Link(rate * 1e6)).calibrated(seen.observation() for seen in calibrated_on)
    constants = dict(step_seconds=fitted.step_seconds, goodput=fitted.goodput, request_seconds=request_seconds)
    rows = []
    for seen in found:
        model = CommunicationTime(Link(seen.rate_mbit * 1e6), **constants)
        used = seen in calibrated_on
        rows.append(dict(asdict(seen), median=seen.median, modelled=seen.modelled(model), calibration=used))
    print_table(found, rows, constants, round_trips)
    if arguments.output is not None:
        about = dict(platform=platform.platform(), processors=os.cpu_count(), torch=torch.__version__)
        result = dict(about=about, constants=constants, store_round_trips=round_trips, measurements=rows)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    return verdict(found, rows)


def print_table(
    found: list[Measurement],
    rows: list[dict[str, Any]],
    constants: dict[str, float],
    round_trips: dict[int, list[float]],
) -> None:
    print("collective  workers  Mbit/s     MB   measured ms (smallest, largest)  modelled ms   error   bytes")
    for seen, row in zip(found, rows, strict=True):
        smallest, largest = min(seen.seconds) * 1e3, max(seen.seconds) * 1e3
        print(
            f"{seen.collective:10}  {seen.workers:7}  {seen.rate_mbit:6.0f}  {seen.nbytes / 1e6:5.2f}  "
            f"{seen.median * 1e3:12.1f} ({smallest:7.1f}, {largest:7.1f})  {row['modelled'] * 1e3:11.1f}  "
            f"{row['modelled'] / seen.median - 1:+6.1%}  {seen.excess_sent:+6.2%}"
            + ("  calibration" if row["calibration"] else "")
        )
    print(", ".join(f"{name} {value:.4g}" for name, value in constants.items()))
    for workers, seconds in round_trips.items():
        print(f"store, {workers} workers at once: {', '.join(f'{s * 1e3:.3f}' for s in seconds)} ms per round trip")


def verdict(found: list[Measurement], rows: list[dict[str, Any]]) -> int:
    """Largest errors over what was predicted, and whether all are as small as they should be."""
    reached = True
    for collective, tolerance in TIME_TOLERANCE.items():
        predicted = [row for row in rows if row["collective"] == collective and not row["calibration"]]
        errors = [abs(row["modelled"] / row["median"] - 1) for row in predicted]
        worst = max(errors, default=0.0)
        reached &= worst <= tolerance
        print(f"{collective}: largest error {worst:.1%} of {len(errors)} predictions, aim {tolerance:.0%}")
    excess = max(abs(seen.excess_sent) for seen in found)
    of_a_rank = max(seen.largest_excess_of_a_rank for seen in found)
    reached &= excess <= BYTES_TOLERANCE
    print(
        f"bytes: sums within {excess:.2%}, aim {BYTES_TOLERANCE:.0%}; every rank within {of_a_rank:.2%} of the tensor"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
