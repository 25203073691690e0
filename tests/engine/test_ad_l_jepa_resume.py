"""The promise on the real model: interrupted anywhere, resumed, every bit as if it had not been."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from adperception.config import load_config
from adperception.engine.run import RunOptions, train

from toy_runs import assert_equal_checkpoints, forget_after

CONFIG = """
model = dict(type="ADLJEPA", point_cloud_range=[0.0, -1.6, -2.0, 3.2, 1.6, 2.0], voxel_size=[0.05, 0.05, 0.1],
             token_mode="{tokens}", mask_per="{mask_per}")
train_dataset = dict(
    type="Folder", root="{root}",
    transforms=[dict(type="RandomWorldFlip", axes=["x", "y"]), dict(type="RandomWorldRotation"),
                dict(type="RandomWorldScaling"), dict(type="PointShuffle")],
)
val_dataset = dict(type="Folder", root="{root}")
optimizer = dict(type="AdamW", lr=1e-3, weight_decay=0.01)
schedule = dict(type="OneCycle")
train = dict(steps=6, batch_size=2, accumulate_steps=2, clip_grad_norm=10.0)
evaluations = [dict(type="RepresentationEvaluation")]
checkpoint = dict(every_steps=1, keep=10)
log = dict(every_steps=1)
"""


@pytest.mark.parametrize(
    ("tokens", "mask_per", "options"),
    [
        ("frozen", "batch", []),
        ("learnable", "sample", []),
        ("frozen", "sample", ["train.amp=bf16", "optimizer.fused=True", "train.check_finite_every=4"]),
    ],
    ids=["frozen tokens", "learnable tokens", "bf16, checks deferred"],
)
def test_interrupted_pre_training_is_bit_equal(tmp_path: Path, tokens: str, mask_per: str, options: list[str]) -> None:
    (tmp_path / "scans").mkdir()
    for index in range(7):  # 4 frames per step: steps cross the ends of epochs
        rng = np.random.default_rng(index)
        points = np.column_stack([rng.uniform([0, -1.6, -2], [3.2, 1.6, 2], (500, 3)), rng.uniform(size=500)])
        np.save(tmp_path / "scans" / f"{index}.npy", points.astype(np.float32))
    config = tmp_path / "run.py"
    config.write_text(CONFIG.format(root=tmp_path / "scans", tokens=tokens, mask_per=mask_per))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(load_config(config, options), RunOptions(whole, device="cpu"))
    for step, workers in ((3, 0), (2, 1)):
        shutil.rmtree(stopped, ignore_errors=True)
        shutil.copytree(whole, stopped)
        forget_after(stopped, step)
        train(
            load_config(config, [*options, f"train.workers={workers}"]), RunOptions(stopped, resume=True, device="cpu")
        )
        for later in range(step + 1, 7):
            assert_equal_checkpoints(whole, stopped, later)
