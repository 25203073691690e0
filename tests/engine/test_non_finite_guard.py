from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adperception.engine.hooks.non_finite_guard import NonFiniteError

from toy_runs import Run, checkpoint_steps, launch

BAD = ("train_dataset.bad_frame=13", "train.evaluate_first=False")


def test_stops_names_term_and_frames_and_writes_the_batch(tmp_path: Path, run_toy: Run) -> None:
    with pytest.raises(NonFiniteError) as caught:
        run_toy(tmp_path, *BAD)
    match = re.fullmatch(
        r'step (\d+): process 0: loss term "squared" is nan for frames ([\d, ]+) \(batch written to (.+)\)\. The '
        r"parameters were not changed\. .*",
        str(caught.value),
    )
    assert match is not None, caught.value
    step, frames, path = int(match[1]), match[2].split(", "), Path(match[3])
    assert "000013" in frames
    # Nothing after the bad step was saved, and what was saved is fine.
    assert max(checkpoint_steps(tmp_path), default=0) == step - 1
    tensors = load_file(path)
    assert torch.isnan(tensors["batch.features"][frames.index("000013"), 2])
    notes = json.loads(path.with_suffix(".json").read_text())
    assert notes["frames"] == frames
    assert notes["loss_terms"]["squared"] == "nan"


def test_parameters_and_buffers_are_unchanged(tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from adperception.engine import trainer as module

    seen: list[torch.Tensor] = []
    init = module.Trainer.__init__

    def remember(self: module.Trainer, **parts: object) -> None:
        init(self, **parts)  # type: ignore[arg-type]
        seen.extend(p for p in self.model.parameters())
        seen.extend(p.detach().clone() for p in self.model.parameters())

    monkeypatch.setattr(module.Trainer, "__init__", remember)
    with pytest.raises(NonFiniteError, match="step 1"):
        run_toy(tmp_path, *BAD, "train.batch_size=22")
    half = len(seen) // 2
    assert all(torch.equal(now, before) for now, before in zip(seen[:half], seen[half:], strict=True))


def test_skip_counts_and_goes_on(tmp_path: Path, run_toy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = run_toy(tmp_path, *BAD, "train.on_non_finite=skip")
    assert trainer.progress.skipped_steps == 3  # the bad frame, once per epoch
    assert trainer.is_done
    state = trainer.model.state_dict()
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())
    assert "Skipped (3 skipped so far)" in capsys.readouterr().out
    saved = json.loads((tmp_path / "checkpoints/step_00000018/state.json").read_text())
    assert saved["progress"]["skipped_steps"] == 3
    for line in (tmp_path / "log.jsonl").open():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def test_names_the_parameter_if_only_the_gradient_is_bad(
    tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import toy

    forward = toy.ToyModel.forward

    def poisoned(self: toy.ToyModel, batch: toy.ToyBatch, generator: torch.Generator | None = None) -> object:
        losses = forward(self, batch, generator)
        self.online[3].weight.register_hook(lambda gradient: gradient * float("inf"))
        return losses

    monkeypatch.setattr(toy.ToyModel, "forward", poisoned)
    with pytest.raises(NonFiniteError, match=r'gradient of "online.3.weight" is not finite though the losses are'):
        run_toy(tmp_path, "train.evaluate_first=False")


@pytest.mark.multi_process
def test_all_processes_stop_with_the_same_message(toy_config: Path, tmp_path: Path) -> None:
    arguments = [str(toy_config), "--work-dir", str(tmp_path / "run"), "--cfg-options", *BAD]
    results = launch(2, arguments)
    assert [result.returncode for result in results] == [1, 1]
    messages = [re.findall(r"^error: .*$", result.stderr, re.MULTILINE) for result in results]
    assert messages[0] == messages[1]
    assert re.search(r'process [01]: loss term "squared" is nan for frames [\d, ]*000013', messages[0][0])
    # The gradient of the other process is bad only because of this one, so it is not accused.
    assert len(re.findall("process [01]:", messages[0][0])) == 1
