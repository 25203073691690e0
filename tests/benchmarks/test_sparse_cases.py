"""What the sparse benchmark runs, on the Triton backend too where its interpreter is at hand."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.sparse import available_backends
from adperception.sparse.backends import backend_for
from adperception.sparse.precision import float32_precision
from adperception.structures import VoxelGrid, Voxels

GRID = VoxelGrid.create([0, 0, 0, 1.6, 1.6, 4.0], [0.1] * 3)
CPU = torch.device("cpu")


@pytest.fixture
def sparse_cases(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("sparse_cases")


@pytest.fixture
def voxels() -> Voxels:
    generator = torch.Generator().manual_seed(0)
    coordinates = (torch.rand(2, 40, 16, 16, generator=generator) < 0.002).nonzero()
    coordinates = coordinates[torch.randperm(len(coordinates), generator=generator)].int()
    return Voxels(torch.randn(len(coordinates), 4, generator=generator), coordinates, 2)


def test_pairs_and_bytes(sparse_cases: ModuleType) -> None:
    """Two neighbours: each meets itself and the other; one 4-byte feature, 27 weights, two indices per pair."""
    encoder = VoxelBackBone8x(1, GRID)
    coordinates = torch.tensor([[0, 5, 4, 4], [0, 5, 4, 5]], dtype=torch.int32)
    case = sparse_cases.layer_cases(encoder.eval(), Voxels(torch.ones(2, 1), coordinates, 1))[0]
    assert case.title == "conv_input.0 1->16 3x3x3"
    assert (case.pairs, case.outputs, case.layers) == (4, 2, 1)
    assert case.operations == 2 * 4 * 16
    assert case.traffic(4) == 4 * (2 * 1 + 2 * 16 + 27 * 16) + 4 * 8
    roofs = {"copy_bytes_per_second": 1e3, "float32_operations_per_second": 1e9}
    assert sparse_cases.roofline_seconds(case, "float32", roofs) == case.traffic(4) / 1e3
    roofs = {"copy_bytes_per_second": 1e9, "float32_operations_per_second": 1e2}
    assert sparse_cases.roofline_seconds(case, "float32", roofs) == case.operations / 1e2


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_every_layer_equals_float64(sparse_cases: ModuleType, voxels: Voxels, backend: str) -> None:
    if backend == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the Triton backend runs on a CPU under its interpreter only")
    encoder = VoxelBackBone8x(4, GRID)
    if backend == "triton":  # the interpreter is slow
        voxels = Voxels(voxels.features[:6], voxels.coordinates[:6], 2)
    cases = sparse_cases.layer_cases(encoder, voxels)
    assert sum(case.layers for case in cases) == 12
    if backend == "triton":
        cases = [cases[0], cases[2]]  # submanifold, strided
    with sparse_cases.precision_of(backend, "float32"):
        for case in cases:
            run = sparse_cases.LayerRun(case, backend, "float32")
            errors = sparse_cases.relative_errors(run)
            assert all(0 < error < 1e-5 for error in errors), case.title
            # The passes that are timed compute what was compared: rows in the backend's own order.
            _, wanted, wanted_weight = run.results()
            assert wanted.shape == run.features.shape
            assert run.run("forward").shape == run.run("forward with rulebook").shape == run.gradient.shape
            assert [g.shape for g in run.run("backward")] == [wanted.shape, wanted_weight.shape]
            assert [g.shape for g in run.run("input gradient")] == [wanted.shape]
            assert [g.shape for g in run.run("weight gradient")] == [wanted_weight.shape]


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_an_encoder_trains_in_a_precision(sparse_cases: ModuleType, voxels: Voxels, precision: str) -> None:
    encoder = VoxelBackBone8x(4, GRID)
    run = sparse_cases.EncoderRun(encoder, voxels, precision)
    with sparse_cases.precision_of("torch", precision):
        bev = run.forward()
        run.train()
    assert bev.dtype == {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert all(p.grad is not None for p in run.encoder.parameters())
    assert all(p.grad is None and p.dtype == torch.float32 for p in encoder.parameters())


def test_settings_come_back(sparse_cases: ModuleType) -> None:
    before = torch.backends.cuda.matmul.allow_tf32, float32_precision(), backend_for(CPU)
    with sparse_cases.precision_of("triton", "tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
        assert float32_precision() == "tf32"
    assert (torch.backends.cuda.matmul.allow_tf32, float32_precision(), backend_for(CPU)) == before


def test_conditions_of_a_cpu(sparse_cases: ModuleType) -> None:
    assert available_backends(CPU) == ("torch",)
    assert sparse_cases.available_conditions(CPU) == [("torch", "float32"), ("torch", "bf16"), ("torch", "fp16")]
