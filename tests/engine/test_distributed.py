from __future__ import annotations

import pytest
import torch

from adperception.engine.distributed import Processes, start_processes

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def test_one_process_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    processes = start_processes("cpu")
    assert (processes.rank, processes.world_size, processes.device.type) == (0, 1, "cpu")
    processes.stop()


def test_missing_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(ValueError, match=r"RANK, MASTER_PORT set, but WORLD_SIZE, LOCAL_RANK, MASTER_ADDR missing"):
        start_processes("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"process 0 needs GPU 0, but 0 are visible\. Use --device cpu"):
        start_processes("cuda")


def test_methods_are_trivial_alone() -> None:
    alone = Processes(0, 1, torch.device("cpu"))
    assert alone.largest([1, 0]) == [1, 0]
    assert alone.gather_text("a") == ["a"]
    assert alone.share_text("a") == "a"
    assert alone.total(torch.ones(2)).tolist() == [1.0, 1.0]


def _talk(rank: int, port: int, results: object) -> None:
    import os

    os.environ |= dict(zip(VARIABLES, [str(rank), "2", str(rank), "127.0.0.1", str(port)], strict=True))
    processes = start_processes("cpu")
    answers = (
        processes.largest([rank, 1 - rank, 0]),
        processes.gather_text("long text ä" if rank else ""),
        processes.share_text("from 0 ü" if rank == 0 else "ignored"),
        processes.total(torch.tensor([rank + 1.0])).tolist(),
        processes.is_main,
    )
    processes.stop()
    results.put((rank, answers))  # type: ignore[attr-defined]


@pytest.mark.multi_process
def test_two_processes_talk() -> None:
    import socket

    import torch.multiprocessing as mp

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_talk, args=(port, results), nprocs=2)
    found = dict(results.get() for _ in range(2))
    for rank in (0, 1):
        assert found[rank] == ([1, 1, 0], ["", "long text ä"], "from 0 ü", [3.0], rank == 0)
