"""Channels-last weights: the same numbers, contiguous files, and runs that go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from adperception.checkpoint.optimizer_state import flatten_optimizer, restore_optimizer
from adperception.checkpoint.save import write_tensors
from adperception.config import load_config
from adperception.engine import run as run_module
from adperception.engine.memory_format import use_channels_last
from adperception.engine.run import RunOptions, train
from adperception.models.backbones.base_bev_backbone import BaseBEVBackbone

from toy_runs import assert_equal_checkpoints, forget_after


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return BaseBEVBackbone(8, (1, 1), (8, 16), (8, 8))


def is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def test_weights_change_their_layout_and_nothing_else() -> None:
    plain, other = small_network(), small_network()
    assert use_channels_last(other) == 6
    assert is_channels_last(other.blocks[0][1].weight)
    assert all(torch.equal(one, two) for one, two in zip(plain.parameters(), other.parameters(), strict=True))
    bev = torch.rand(2, 8, 8, 8)
    torch.testing.assert_close(other(bev), plain(bev), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_moments_follow_the_weights_and_files_do_not(tmp_path: Path, fused: bool) -> None:
    network = small_network()
    use_channels_last(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=fused)
    network(torch.rand(2, 8, 8, 8)).sum().backward()
    optimizer.step()
    weight = network.blocks[0][1].weight
    assert is_channels_last(optimizer.state[weight]["exp_avg"])
    tensors, state = flatten_optimizer(optimizer, network)
    write_tensors(tmp_path / "model.safetensors", network.state_dict())
    write_tensors(tmp_path / "optimizer.safetensors", tensors)

    resumed = small_network()
    use_channels_last(resumed)
    resumed.load_state_dict(load_file(tmp_path / "model.safetensors"))
    again = torch.optim.AdamW(resumed.parameters(), lr=0.1, fused=fused)
    saved = json.loads(json.dumps(state))
    saved["groups"][0]["fused"] = not fused  # how it runs is this run's business
    restore_optimizer(again, resumed, load_file(tmp_path / "optimizer.safetensors"), saved)
    assert again.param_groups[0]["fused"] is fused
    copied = resumed.blocks[0][1].weight
    assert is_channels_last(copied)
    assert is_channels_last(again.state[copied]["exp_avg"])
    for network_, optimizer_ in ((network, optimizer), (resumed, again)):
        optimizer_.zero_grad()
        network_(torch.ones(1, 8, 8, 8)).sum().backward()
        optimizer_.step()
    assert all(torch.equal(one, two) for one, two in zip(network.parameters(), resumed.parameters(), strict=True))


def test_a_resumed_run_is_bit_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_run: Path) -> None:
    compile_modules = run_module.compile_modules

    def as_on_a_gpu(model: nn.Module, *arguments: object) -> object:
        assert use_channels_last(model) > 0
        return compile_modules(model, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "compile_modules", as_on_a_gpu)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(load_config(small_run), RunOptions(whole, device="cpu"))
    shutil.copytree(whole, stopped)
    forget_after(stopped, 2)
    train(load_config(small_run), RunOptions(stopped, resume=True, device="cpu"))
    for step in (3, 4):
        assert_equal_checkpoints(whole, stopped, step)


@pytest.fixture
def small_run(tmp_path: Path) -> Path:
    """A pre-training with two-dimensional convolutions."""
    import numpy as np

    (tmp_path / "scans").mkdir()
    for index in range(4):
        rng = np.random.default_rng(index)
        points = np.column_stack([rng.uniform([0, -1.6, -2], [3.2, 1.6, 2], (300, 3)), rng.uniform(size=300)])
        np.save(tmp_path / "scans" / f"{index}.npy", points.astype(np.float32))
    config = tmp_path / "run.py"
    config.write_text(f"""
model = dict(type="ADLJEPA", point_cloud_range=[0.0, -1.6, -2.0, 3.2, 1.6, 2.0], voxel_size=[0.05, 0.05, 0.1])
train_dataset = dict(type="Folder", root="{tmp_path / "scans"}")
optimizer = dict(type="AdamW", lr=1e-3, fused=True)
train = dict(steps=4, batch_size=2, check_finite_every=3)
checkpoint = dict(every_steps=1, keep=10)
""")
    return config
