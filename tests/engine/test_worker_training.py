"""Runs whose processes train apart: every strategy from a config, stopped and resumed; the consensus for others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import toy
from toy_runs import forget_after
from toy_workers_runs import launch_workers

STRATEGIES = {
    "easgd": 'type="EASGD"',
    "easgd_joint": 'type="EASGD", order="joint"',
    "lsgd": 'type="LSGD"',
    "lsgd_groups": 'type="LSGD", groups=2, global_every=2',
    "mgrawa": 'type="MGRAWA"',
    "lgrawa_online": 'type="LGRAWA", norm_source="online"',
    "dpsgd": 'type="DPSGD", schedule=dict(type="RingSchedule", weight=0.3)',
    "matcha": 'type="MATCHA", graph=[[0, 1]], budget=0.6',
    "aldsgd": 'type="ALDSGD", schedule=dict(type="FixedSchedule", graph="complete")',
    "local_sgd": 'type="LocalSGD"',
    "post_local_sgd": 'type="PostLocalSGD", local_from_step=3',
    "slow_mo": 'type="SlowMo"',
    "diloco": 'type="DiLoCo"',
    "dppf": 'type="DPPF", push=0.01',
}


def config(folder: Path, name: str, options: str, more: str = "") -> str:
    path = folder / f"{name}.py"
    text = toy.CONFIG.replace("epochs=3", "steps=8").replace("every_epochs=1", "every_epochs=2")
    distributed = f"distributed = dict({options}, sync_every_steps=2, round_timeout_seconds=20.0)\n"
    path.write_text(text + (more or distributed), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps for every strategy."""
    folder = tmp_path_factory.mktemp("strategies")
    runs = [{"config": config(folder, n, o), "work_dir": str(folder / n)} for n, o in STRATEGIES.items()]
    for name, results in zip(STRATEGIES, launch_workers(2, runs), strict=True):
        assert [(r["error"], r["step"], r["rounds"]) for r in results] == [("", 8, 4)] * 2, name
    return folder


@pytest.mark.multi_process
def test_resume_is_equal_to_the_bit_for_every_strategy(whole: Path, tmp_path: Path) -> None:
    """From the middle between two rounds, and from right after one."""
    runs = []
    for number, name in enumerate(STRATEGIES):
        shutil.copytree(whole / name, tmp_path / name)
        forget_after(tmp_path / name, 3 + number % 2)
        runs.append({"config": str(whole / f"{name}.py"), "work_dir": str(tmp_path / name), "resume": True})
    for name, results in zip(STRATEGIES, launch_workers(2, runs), strict=True):
        assert [(r["error"], r["step"], r["rounds"]) for r in results] == [("", 8, 4)] * 2, name
        for step in (5, 8):
            for file in ("model.safetensors", "rank_00000.safetensors", "rank_00001.safetensors"):
                one, two = (load_file(d / name / f"checkpoints/step_{step:08d}" / file) for d in (whole, tmp_path))
                assert one.keys() == two.keys()
                different = [k for k in one if not torch.equal(one[k], two[k]) and not k.startswith("random/")]
                assert not different, (name, step, file, different)
        logs = [[json.loads(line)["step"] for line in (d / name / "log.jsonl").open()] for d in (whole, tmp_path)]
        assert logs[0] == logs[1]


def test_model_file_is_the_consensus(whole: Path) -> None:
    """Also of the moving average, which takes no part in rounds; EASGD's is its centre."""
    for name in ("local_sgd", "lsgd", "dpsgd", "easgd"):
        folder = whole / name / "checkpoints/step_00000007"
        model = load_file(folder / "model.safetensors")
        ranks = [load_file(folder / f"rank_0000{rank}.safetensors") for rank in (0, 1)]
        assert not torch.equal(ranks[0]["model/online.0.weight"], ranks[1]["model/online.0.weight"])
        for key in ("average.0.weight", "scale", *([] if name == "easgd" else ["online.0.weight"])):
            torch.testing.assert_close(model[key], (ranks[0][f"model/{key}"] + ranks[1][f"model/{key}"]) / 2)
    mean = (ranks[0]["model/online.0.weight"] + ranks[1]["model/online.0.weight"]) / 2
    assert not torch.allclose(model["online.0.weight"], mean)
    assert torch.equal(ranks[0]["strategy/state/center"], ranks[1]["strategy/state/center"])


def test_log_shows_the_rounds(whole: Path) -> None:
    for name in STRATEGIES:
        lines = [json.loads(line) for line in (whole / name / "log.jsonl").open()]
        last = [line for line in lines if line["kind"] == "train"][-1]
        assert (last["rounds"], last["rounds_skipped"], last["workers"]) == (4, 0, 2)
        assert last["bytes_sent"] > 0
        assert last["round_seconds"] > 0
        assert last["workers_loss"] > 0
        assert last["disagreement"] >= 0
        if name.startswith("lsgd"):
            elections = sum(value for key, value in last.items() if key.startswith("leader_"))
            assert elections == (2 if "groups" in name else 4)
        if "grawa" in name:
            assert last["weight_0"] + last["weight_1"] == pytest.approx(1)


@pytest.mark.multi_process
def test_other_numbers_of_workers(whole: Path, tmp_path: Path) -> None:
    """Refused, unless from the consensus; another strategy may take over from it too."""
    for name in ("lsgd", "easgd", "alone"):
        shutil.copytree(whole / name.replace("alone", "lsgd"), tmp_path / name)
        forget_after(tmp_path / name, 4)
    lsgd, easgd = str(whole / "lsgd.py"), str(whole / "easgd.py")
    refused, going_on, other = launch_workers(
        3,
        [
            {"config": lsgd, "work_dir": str(tmp_path / "lsgd"), "resume": True},
            {"config": lsgd, "work_dir": str(tmp_path / "lsgd"), "resume_consensus": True},
            {"config": lsgd, "work_dir": str(tmp_path / "easgd"), "resume_consensus": True},
        ],
    )
    for result in refused:
        assert "holds workers 0, 1, this run has workers 0, 1, 2. Start the same workers, or use" in result["error"]
        assert "--resume-consensus" in result["error"]
    for result in going_on:
        assert (result["error"], result["step"], result["rounds"]) == ("", 8, 2)
    assert [result["error"] for result in other] == [""] * 3
    assert easgd
    first = load_file(tmp_path / "lsgd/checkpoints/step_00000008/rank_00002.safetensors")
    assert torch.isfinite(first["model/online.0.weight"]).all()


@pytest.mark.multi_process
def test_mistakes_are_named(tmp_path: Path) -> None:
    fixed = 'type="DPSGD", schedule=dict(type="FixedSchedule", graph="star")'
    texts = {
        "sync_evry": ('type="LSGD", sync_evry_steps=2', '"sync_evry_steps" is not an option of LSGD. Did you mean'),
        "type": ('type="LSDG"', 'type="LSDG" is not a registered strategy'),
        "zero": ('type="LSGD", sync_every_steps=0', "sync_every_steps=0 must be an integer of at least 1"),
        "range": ('type="EASGD", pull=2.0', "EASGD: pull=2.0 must be 0 or more, at most 1"),
        "graph": (fixed, "graph='star' is no graph"),
        "edges": ('type="MATCHA", graph=[[0, 0]]', "connects a node with itself"),
        "ticket": ('type="LSGD", trigger="ticket"', "use SyncOptimizer with the trigger Ticket"),
        "both": ('type="LSGD", sync_every_steps=2, sync_every_samples=9', "give one of sync_every_steps"),
    }
    runs = [
        {"config": config(tmp_path, name, "", f"distributed = dict({text})\n"), "work_dir": str(tmp_path / name)}
        for name, (text, _) in texts.items()
    ]
    for (name, (_, message)), results in zip(texts.items(), launch_workers(1, runs), strict=True):
        assert message in results[0]["error"], name
        assert f"{name}.py" in results[0]["error"], name


@pytest.mark.multi_process
def test_a_single_worker_is_refused_unless_allowed(tmp_path: Path) -> None:
    runs = [
        {"config": config(tmp_path, "one", 'type="LSGD"'), "work_dir": str(tmp_path / "one")},
        {"config": config(tmp_path, "two", 'type="LSGD", allow_single_worker=True'), "work_dir": str(tmp_path / "two")},
    ]
    refused, allowed = launch_workers(1, runs)
    assert "LSGD needs at least two workers: start them with torchrun" in refused[0]["error"]
    assert (allowed[0]["error"], allowed[0]["rounds"]) == ("", 0)
