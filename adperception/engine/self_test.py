"""A second of sparse convolution, forward and backward, in a child process.

Run as a program (``python -m adperception.engine.self_test``), this module prints one JSON object. The doctor starts
it once per device and backend, so that a crash in native code ends the child and not the report. With ``--measure`` it
times the backends that gave right results against each other and keeps the figures for the choice of the backend.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from typing import Any

__all__ = ["main", "measure", "run_self_test", "torch_facts"]

_GRID = (24, 160, 160)
_COLUMNS = 4000


def torch_facts() -> dict[str, Any]:
    """What torch sees of this machine: versions, devices, threads, sparse backends per device."""
    import torch

    from adperception.sparse import available_backends
    from adperception.sparse.backends import triton_problem

    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda_of_torch": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "devices": [{"name": "cpu", "title": platform.processor() or platform.machine(), "capability": None}],
    }
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        memory = torch.cuda.get_device_properties(index).total_memory
        title = f"{torch.cuda.get_device_name(index)}, {memory / 2**30:.0f} GiB"
        facts["devices"].append({"name": f"cuda:{index}", "title": title, "capability": f"{major}.{minor}"})
    for device in facts["devices"]:
        device["backends"] = list(available_backends(device["name"]))
        device["no_triton"] = "" if device["name"] == "cpu" else triton_problem(torch.device(device["name"]))
    return facts


def run_self_test(device: str, backend: str, seconds: float) -> dict[str, Any]:
    """Forward and backward of two sparse convolutions on a fixed scene, repeated for about ``seconds``.

    Args:
        device: ``"cpu"`` or ``"cuda:0"``.
        backend: a sparse backend.
        seconds: how long to repeat; at least three rounds are done, the first is not timed.

    Returns:
        ``milliseconds`` (median of a round), ``rounds``, and ``fingerprint``: numbers that depend on every output and
        every gradient, to be compared between devices and backends.
    """
    import torch

    from adperception.sparse import SparseConv3d, SparseSequential, SparseTensor, SubMConv3d, use_backend

    generator = torch.Generator().manual_seed(0)
    depth, height, width = _GRID
    columns = torch.randperm(height * width, generator=generator)[:_COLUMNS]
    # Two layers of ground in every column, a wall in every eighth: dense and thin parts.
    levels = torch.arange(depth)
    sites = (levels[None] < 2) | ((columns % 8 == 0)[:, None] & (levels[None] < 12))
    column, z = sites.nonzero().T
    place = columns[column]
    coordinates = torch.stack([torch.zeros_like(z), z, place // width, place % width], dim=1).int()
    features = torch.randn(len(coordinates), 16, generator=generator)
    layers = SparseSequential(SubMConv3d(16, 32, 3, key="subm"), SparseConv3d(32, 64, 3, 2, 1, key="down"))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 20)
    layers.to(device)
    features, coordinates = features.to(device).requires_grad_(), coordinates.to(device)

    durations: list[float] = []
    fingerprint: list[float] = []
    end = time.perf_counter() + seconds
    with use_backend(backend):
        while len(durations) < 3 or time.perf_counter() < end:
            layers.zero_grad(set_to_none=True)
            features.grad = None
            start = time.perf_counter()
            output = layers(SparseTensor(features, coordinates, _GRID, batch_size=1))
            # The order of output sites differs between backends, so every site is weighted by where it is. All
            # terms are positive: nothing cancels, and the tolerance of the comparison is a relative one.
            direction = torch.tensor([0.0, 0.7, 0.3, 0.1], device=device)
            weight = 1.5 + torch.cos(output.coordinates.float() @ direction)
            loss = (output.features.square().sum(dim=1) * weight).sum()
            loss.backward()
            gradients = [g for g in (features.grad, *(p.grad for p in layers.parameters())) if g is not None]
            fingerprint = [float(loss), *(float(g.norm()) for g in gradients)]
            durations.append(time.perf_counter() - start)  # float() has waited for the device
    return {
        "milliseconds": statistics.median(durations[1:]) * 1000,
        "rounds": len(durations),
        "fingerprint": fingerprint,
    }


def measure(device: str, backends: Sequence[str]) -> dict[str, dict[str, float]]:
    """Milliseconds of a training pass of an encoder, by precision and backend; kept for the choice of the backend."""
    import torch

    from adperception.engine.sparse_tuning import PRECISIONS, measure_backends
    from adperception.sparse.tuning import DeviceTuning, write_tuning

    where = torch.device(device)
    times = measure_backends(where, backends, list(PRECISIONS))
    write_tuning(where, DeviceTuning(backends=times))
    return times


def main(arguments: list[str] | None = None) -> None:
    """Print the facts, or with ``--device`` and ``--backend`` the outcome of a self-test, as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--measure", nargs="+", metavar="BACKEND", help="time these against each other")
    options = parser.parse_args(arguments)
    if options.device is None:
        print(json.dumps(torch_facts()))
    elif options.measure:
        print(json.dumps(measure(options.device, options.measure)))
    else:
        print(json.dumps(run_self_test(options.device, options.backend, options.seconds)))


if __name__ == "__main__":
    main()
