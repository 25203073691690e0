from __future__ import annotations

import re
from pathlib import Path

import pytest

from adperception.config import load_config
from adperception.engine.settings import parse_settings

import toy


def parse(tmp_path: Path, old: str, new: str, *overrides: str) -> object:
    assert old in toy.CONFIG
    path = tmp_path / "config.py"
    path.write_text(toy.CONFIG.replace(old, new), encoding="utf-8")
    return parse_settings(load_config(path, overrides).values)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("optimizer =", "optimiser =", 5, '"optimiser" is not a top-level key. Did you mean "optimizer"?'),
        ("accumulate_steps", "acumulate_steps", 7, '"acumulate_steps" is not an option of train. Did you mean "accum'),
        ("keep=30", "keeep=30", 9, '"keeep" is not an option of checkpoint. Did you mean "keep"?'),
        ("batch_size=4", "batch_size=4.5", 7, "batch_size=4.5 must be an integer, not float."),
        ("batch_size=4", "batch_size=True", 7, "batch_size=True must be an integer, not bool."),
        ("batch_size=4, ", "", 7, '"batch_size" is missing'),
        ('best_rule="less"', 'best_rule="least"', 9, "best_rule='least' must be 'less' or 'greater'."),
        ("epochs=3", "epochs=3, steps=4", 7, "train: give exactly one of epochs and steps"),
        ("batch_size=4", "batch_size=0", 7, "train: batch_size=0 must be at least 1."),
        ("keep=30", "keep=0", 9, "checkpoint: keep=0 must be at least 1."),
        ("clip_grad_norm=10.0", "clip_grad_norm=-1", 7, "train: clip_grad_norm=-1 must be positive"),
        ("batch_size=4", 'batch_size=4, amp="bf8"', 7, "amp='bf8' must be 'off' or 'bf16' or 'fp16'."),
        ("batch_size=4", "batch_size=4, amp=True", 7, "amp=True must be 'off' or 'bf16' or 'fp16', not bool."),
        ("batch_size=4", "batch_size=4, check_finite_every=0", 7, "train: check_finite_every=0 must be at least 1."),
        ("batch_size=4", "batch_size=4, prefetch_factor=0", 7, "train: prefetch_factor=0 must be at least 1."),
        ("batch_size=4", "batch_size=4, compile=3", 7, "compile=3 must be True or False or a string or None, not int."),
        ("seed = 3", 'seed = "3"', 11, "seed='3' must be an integer, not str."),
        ("evaluations = [", "evaluations = 3 #", 8, "evaluations=3 must be a list of sections, not int."),
        ("log = dict(every_steps=2)", "log = 3", 10, "log=3 must be a section, dict(...), not int."),
    ],
)
def test_errors_name_the_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse(tmp_path, old, new)
    assert str(caught.value).startswith(f"{tmp_path / 'config.py'}:{line}  ")


def test_misspelt_command_line_option(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r'^--cfg-options  "epoch" is not an option of train\. Did you mean "epochs"\?'
    ):
        parse(tmp_path, "seed = 3", "seed = 3", "train.epoch=3")


def test_missing_section(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='"optimizer" is missing'):
        parse(tmp_path, toy.CONFIG.splitlines()[4], "")


def test_evaluations_need_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluations need a val_dataset"):
        parse(tmp_path, toy.CONFIG.splitlines()[3], "")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train.amp=fp16", 'train.amp="fp16" does not go together with a distributed section'),
        ("train.check_finite_every=5", "train.check_finite_every=5 does not go together with a distributed section"),
    ],
)
def test_what_does_not_go_with_processes_that_train_apart(tmp_path: Path, option: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(tmp_path, "seed = 3", "seed = 3", "distributed.type=LSGD", "distributed.sync_every_steps=4", option)
    parse(tmp_path, "seed = 3", "seed = 3", "distributed.type=LSGD", "distributed.sync_every_steps=4", "train.amp=bf16")


def test_misspelt_option_of_a_section(tmp_path: Path) -> None:
    from adperception.engine.run import check_names

    for old, new, nearest in [
        ("width=8", "widht=8", '"widht" is not an option of ToyModel. Did you mean "width"?'),
        ("weight_decay", "weigth_decay", '"weigth_decay" is not an option of AdamW. Did you mean "weight_decay"?'),
        ("peak_fraction", "peak_fractoin", 'an option of OneCycle. Did you mean "peak_fraction"?'),
        ('"ToyEvaluation"', '"ToyEvaluator"', 'not a registered evaluation. Did you mean "ToyEvaluation"?'),
        ("frames=5", "frame=5", '"frame" is not an option of ToyDataset. Did you mean "frames"?'),
    ]:
        with pytest.raises(ValueError, match=re.escape(nearest)) as caught:
            check_names(parse(tmp_path, old, new))  # type: ignore[arg-type]
        assert re.match(rf"{re.escape(str(tmp_path / 'config.py'))}:\d+  ", str(caught.value))
