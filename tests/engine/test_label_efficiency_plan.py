"""Cells, their configs and keys: what is held equal, what never sees a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adperception.config import Config, load_config
from adperception.engine.cells import with_sections
from adperception.engine.label_efficiency_plan import (
    Study,
    default_pretraining,
    fine_tuning_config,
    full_steps,
    plan_cells,
    pretraining_config,
)
from adperception.engine.settings import parse_settings
from adperception.registry import DATASETS
from adperception.zoo import config_directory

DETECTOR = """
model = dict(type="SECOND", voxel_size=[0.1, 0.1, 0.1])
train_dataset = dict(type="PlanFrames", frames=40)
val_dataset = dict(type="PlanFrames", frames=4)
optimizer = dict(type="AdamW", lr=0.01)
train = dict(epochs=3, batch_size=4, accumulate_steps=2, workers=2)
evaluations = [dict(type="KittiAP", every_epochs=5)]
checkpoint = dict(every_epochs=1, keep=3, best="mean_3d_R40_moderate", best_rule="greater")
"""
PRETRAINING = """
model = dict(type="BEVMAE", voxel_size=[0.1, 0.1, 0.1])
train_dataset = dict(type="PlanFrames", frames=40)
val_dataset = dict(type="PlanFrames", frames=4)
optimizer = dict(type="AdamW", lr=0.01)
train = dict(steps=30, batch_size=4)
evaluations = [dict(type="EncoderEvaluation")]
"""


@DATASETS.register_module()
class PlanFrames:
    def __init__(self, frames: int, fraction: float = 1.0, interval: int = 1, prefix: str = "frame") -> None:
        self.frame_ids = [f"{prefix}_{index}" for index in range(frames)][: int(frames * fraction) : interval]

    def __len__(self) -> int:
        return len(self.frame_ids)

    def get(self, index: int, rng: np.random.Generator) -> Any:
        raise AssertionError("planning reads no frame")


@pytest.fixture
def detector(tmp_path: Path) -> Config:
    path = tmp_path / "detector.py"
    path.write_text(DETECTOR, encoding="utf-8")
    return load_config(path)


@pytest.fixture
def study(detector: Config, tmp_path: Path) -> Study:
    path = tmp_path / "method.py"
    path.write_text(PRETRAINING, encoding="utf-8")
    method = load_config(path)
    return Study(
        detector=detector,
        pretraining={"bev_mae": method, "ad_l_jepa": method},
        inits=("scratch", "bev_mae"),
        fractions=(0.1, 1.0),
        seeds=2,
    )


def test_cells_come_seed_after_seed_with_pretraining_first(study: Study) -> None:
    cells = plan_cells(study)
    assert [(c.kind, c.init, c.fraction, c.seed) for c in cells[:5]] == [
        ("pretrain", "bev_mae", None, 0),
        ("finetune", "scratch", 0.1, 0),
        ("finetune", "bev_mae", 0.1, 0),
        ("finetune", "scratch", 1.0, 0),
        ("finetune", "bev_mae", 1.0, 0),
    ]
    assert len(cells) == 10
    assert len({cell.key for cell in cells}) == len({cell.folder for cell in cells}) == 10
    for cell in cells:
        assert cell.config.values["seed"] == cell.seed
        parse_settings(cell.config.values)
        if cell.needs is not None:
            assert (cell.needs.kind, cell.needs.init, cell.needs.seed) == ("pretrain", cell.init, cell.seed)
        else:
            assert cell.kind == "pretrain" or cell.init == "scratch"


def test_every_fraction_gets_the_steps_of_all_labels(study: Study) -> None:
    assert full_steps(study.detector) == 3 * 5  # 40 frames, effective batch 8
    fine = [cell for cell in plan_cells(study) if cell.kind == "finetune"]
    for cell in fine:
        train = cell.config.values["train"]
        assert train["steps"] == 15
        assert "epochs" not in train
        assert (train["batch_size"], train["accumulate_steps"]) == (4, 2)
        assert cell.config.values["train_dataset"]["fraction"] == cell.fraction
        assert "best" not in cell.config.values["checkpoint"]
        assert cell.config.values["evaluations"] == [{"type": "KittiAP", "every_epochs": 10**9}]
    chosen = plan_cells(replace(study, steps=7, pretrain_steps=9))
    assert {c.config.values["train"]["steps"] for c in chosen if c.kind == "finetune"} == {7}
    assert {c.config.values["train"]["steps"] for c in chosen if c.kind == "pretrain"} == {9}


def test_upstream_budget_and_every_kth_frame(study: Study) -> None:
    upstream = replace(study, budget="upstream", fractions=(0.05, 0.2, 0.5, 1.0))
    epochs = [fine_tuning_config(upstream, f, 99).values["train"] for f in upstream.fractions]
    assert [(t["epochs"], "steps" in t) for t in epochs] == [(80, False), (320, False), (160, False), (80, False)]
    every = fine_tuning_config(replace(study, subset="every", fractions=(0.05, 0.2)), 0.05, 9)
    assert every.values["train_dataset"]["interval"] == 20
    assert "fraction" not in every.values["train_dataset"]


def test_pretraining_is_shared_by_all_fractions_and_has_no_labels(study: Study) -> None:
    (first, *_) = plan_cells(study)
    assert "fraction" not in first.config.values["train_dataset"]
    assert "val_dataset" not in first.config.values
    assert first.config.values["evaluations"] == []
    for option in ("transforms=[{'type': 'GroundTruthSampling'}]", "replace_empty_frames=True"):
        config = load_config(first.config.path, [f"train_dataset.{option}"])
        with pytest.raises(ValueError, match="brings labels into the pre-training"):
            pretraining_config(config, None)


def keys(study: Study) -> dict[tuple[object, ...], str]:
    return {(c.kind, c.init, c.fraction, c.seed): c.key for c in plan_cells(study)}


def test_keys_follow_everything_that_decides_the_outcome(study: Study) -> None:
    before = keys(study)

    def changed(other: Study) -> set[str]:
        after = keys(other)
        return {f"{k[0]} {k[1]}" for k in before.keys() & after.keys() if before[k] != after[k]}

    detector, method = study.detector, study.pretraining["bev_mae"]
    everything = {"pretrain bev_mae", "finetune scratch", "finetune bev_mae"}
    assert changed(study) == set()
    assert changed(replace(study, seeds=3, inits=("bev_mae", "ad_l_jepa", "scratch"), fractions=(0.5, 1.0))) == set()
    assert changed(replace(study, steps=16)) == {"finetune scratch", "finetune bev_mae"}
    # Another pre-training is another start of the fine-tuning.
    assert changed(replace(study, pretrain_steps=31)) == {"pretrain bev_mae", "finetune bev_mae"}
    slower = with_sections(detector, optimizer={"type": "AdamW", "lr": 0.001})
    assert changed(replace(study, detector=slower)) == {"finetune scratch", "finetune bev_mae"}
    more = with_sections(method, train_dataset={"type": "PlanFrames", "frames": 41})
    assert changed(replace(study, pretraining={"bev_mae": more})) == {"pretrain bev_mae", "finetune bev_mae"}
    quiet = with_sections(detector, log={"every_steps": 3}, train={**detector.values["train"], "workers": 0})
    assert changed(replace(study, detector=quiet)) == set()
    assert everything == {f"{k[0]} {k[1]}" for k in before}


def test_frames_count_by_name(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(study)
    monkeypatch.setattr(PlanFrames.__init__, "__defaults__", (1.0, 1, "other"))
    assert not set(before.values()) & set(keys(study).values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fractions": (0.0,)}, "lies above 0 and is at most 1"),
        ({"fractions": (0.1, 0.1)}, "one or more different ones"),
        ({"inits": ()}, "one or more different ones"),
        ({"inits": ("scratch", "mae")}, "no pre-training config for mae"),
        ({"seeds": 0}, "--seeds 0 must be at least 1"),
        ({"steps": 0}, "--steps 0 must be at least 1"),
        ({"budget": "upstream"}, r"says nothing about the fraction 0\.1"),
        ({"budget": "upstream", "fractions": (0.2,), "steps": 5}, "leave out --steps"),
        ({"subset": "every", "fractions": (0.3,)}, "not every k-th frame"),
    ],
)
def test_bad_studies_are_refused(study: Study, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(study, **change)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("init={'encoder': 'x'}", "take out the init section"),
        ("train_dataset.fraction=0.5", r"take out train_dataset\.fraction"),
        ("evaluations=[]", "needs evaluations to compare"),
        (
            "train_dataset.transforms=[{'type': 'GroundTruthSampling', 'database': 'everything'}]",
            "every fraction needs one that holds its frames only",
        ),
    ],
)
def test_bad_detector_configs_are_refused(study: Study, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(study, detector=load_config(study.detector.path, [override]))


@pytest.mark.parametrize("method", ["ad_l_jepa", "occupancy_mae", "bev_mae"])
@pytest.mark.parametrize("variant", ["small", "kitti"])
def test_the_zoo_has_a_partner_for_second(method: str, variant: str) -> None:
    detector = load_config(
        config_directory() / f"second/second_{variant}.py", ["train_dataset.root=elsewhere", "train_dataset.split=mini"]
    )
    config = default_pretraining(detector, method)
    parse_settings(config.values)
    assert config.name == f"{method}_{variant}"
    dataset = config.values["train_dataset"]
    assert (dataset["root"], dataset["split"]) == ("elsewhere", "mini")
    assert not {"classes", "replace_empty_frames", "fraction"} & dataset.keys()
    assert "GroundTruthSampling" not in [t["type"] for t in dataset["transforms"]]
    pretraining_config(config, 5)


def test_no_partner_is_an_error_that_says_how_to_name_one(tmp_path: Path) -> None:
    detector = load_config(config_directory() / "second/second_small.py")
    with pytest.raises(ValueError, match=r'--init ad_l_jep: .* Did you mean "ad_l_jepa"'):
        default_pretraining(detector, "ad_l_jep")
    with pytest.raises(ValueError, match=r"model\.voxel_size is .* same geometry"):
        default_pretraining(detector, "bev_mae", ["model.voxel_size=[0.2, 0.2, 0.1]"])
    own = tmp_path / "mine.py"
    own.write_text(DETECTOR, encoding="utf-8")
    with pytest.raises(ValueError, match="--pretrain bev_mae=CONFIG"):
        default_pretraining(load_config(own), "bev_mae")
