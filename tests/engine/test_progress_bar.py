"""What a step's line says of the loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from adperception.engine.hooks.progress_bar import ProgressBar
from adperception.engine.sampling import MicroBatch


@pytest.mark.parametrize(("trains_apart", "shown"), [(False, "0.8"), (True, "0.2")])
def test_the_loss_is_a_mean_over_frames_with_any_number_of_processes(
    capsys: pytest.CaptureFixture[str], trains_apart: bool, shown: str
) -> None:
    """A quarter of the step's frames is here: 0.2 is this process's part of the mean, unless it trains apart."""
    trainer = SimpleNamespace(
        sync=object() if trains_apart else None,
        processes=SimpleNamespace(is_main=True),
        progress=SimpleNamespace(step=1),
        total_steps=9,
        settings=SimpleNamespace(log=SimpleNamespace(every_steps=1)),
        is_done=False,
    )
    micro_batches = [MicroBatch(((0, 1),), 0.125), MicroBatch(((0, 2),), 0.125)]
    outcome = SimpleNamespace(
        loss=torch.tensor(0.2), micro_batches=micro_batches, step_seconds=1.0, wait_seconds=0.0, learning_rate=0.1
    )
    ProgressBar().after_step(cast("Any", trainer), cast("Any", outcome))
    assert f"step 1/9  loss {shown}  learning rate 0.1" in capsys.readouterr().out
