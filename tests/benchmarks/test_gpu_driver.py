"""The command that runs all GPU benchmarks: limits, what is kept, the report; and the table of costs."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from adperception.zoo import load_model_config

CONTENT = {
    "benchmark": "x",
    "finished": True,
    "small": False,
    "device": {"name": "some GPU", "kind": "cuda", "driver": "1"},
    "clocks": [{}, {}],
    "versions": {"torch": "2", "cuda": "12", "triton": "3"},
    "rows": [],
    "left_out": [],
    "verdicts": [
        {"point": 2, "claim": "fast", "value": 1.5, "limit": 1.3, "at_least": True, "status": "PASS"},
        {"point": 1, "claim": "exact", "value": None, "limit": 0.1, "at_least": False, "status": "not measured"},
    ],
}
SCRIPT = """
import json, pathlib, subprocess, sys, time
path = pathlib.Path(sys.argv[sys.argv.index("--json") + 1])
path.write_text(json.dumps({content!r}))
print("measured with", sys.argv[sys.argv.index("--seconds") + 1], flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({pid!r}).write_text(str(child.pid))
{rest}
"""


@pytest.fixture
def gpu(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("gpu")


@pytest.fixture
def cost_table(gpu: ModuleType) -> ModuleType:
    return importlib.import_module("cost_table")


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_a_job_over_its_limit_is_ended_with_its_children_and_its_figures_kept(gpu: ModuleType, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = SCRIPT.format(content=CONTENT, pid=str(pid), rest="time.sleep(60)")
    job = gpu.Job("slow", [sys.executable, "-c", code], 10)
    start = time.monotonic()
    outcome = gpu.run_job(job, tmp_path, scale=0.5, deadline=gpu.Deadline(100))
    assert time.monotonic() - start < 20
    assert outcome.state == "ended after 5 s"
    assert outcome.content == CONTENT
    assert not is_running(int(pid.read_text()))
    assert "measured with 3" in (tmp_path / "slow.log").read_text()


def test_report_and_verdicts(gpu: ModuleType, tmp_path: Path) -> None:
    code = SCRIPT.format(content=CONTENT, pid=str(tmp_path / "pid"), rest="child.kill(); sys.exit(3)")
    done = gpu.run_job(gpu.Job("quick", [sys.executable, "-c", code], 60), tmp_path, 1.0, gpu.Deadline(100))
    late = gpu.run_job(gpu.Job("late", ["never run"], 60), tmp_path, 1.0, gpu.Deadline(1))
    assert (done.state, late.state) == ("failed (exit code 3)", "not begun")
    verdicts = gpu.write_report(tmp_path, [done, late])
    assert [verdict["point"] for verdict in verdicts] == [1, 2]
    text = (tmp_path / "report.md").read_text()
    assert "| 2 | fast | 1.5 | at least 1.3 | PASS |" in text
    assert "| 1 | exact | - | at most 0.1 | not measured |" in text
    assert "| late | not begun | 0 |" in text
    assert "says anything about a GPU" not in text
    assert json.loads((tmp_path / "summary.json").read_text())["verdicts"] == verdicts


@pytest.mark.parametrize(
    ("line", "code", "status", "value"),
    [
        ("12 passed, 3 skipped in 4.0s", 0, "PASS", 0.0),
        ("2 failed, 10 passed in 4.0s", 1, "FAIL", 2.0),
        ("15 skipped in 1.0s", 0, "not measured", None),
        ("Traceback", 4, "FAIL", None),
    ],
)
def test_verdict_of_the_gpu_tests(
    gpu: ModuleType, tmp_path: Path, line: str, code: int, status: str, value: float | None
) -> None:
    command = [sys.executable, "-c", f"print({line!r}); raise SystemExit({code})"]
    job = gpu.Job("gpu_tests", command, 60, writes_json=False)
    (verdict,) = gpu.write_report(tmp_path, [gpu.run_job(job, tmp_path, 1.0, gpu.Deadline(100))])
    assert (verdict["status"], verdict["value"]) == (status, value)


def test_every_job_is_a_script_that_is_there(gpu: ModuleType) -> None:
    jobs = gpu.make_jobs("cpu", small=True)
    assert len({job.name for job in jobs}) == len(jobs)
    scripts = [Path(job.command[1]) for job in jobs if job.writes_json]
    assert scripts
    assert all(script.is_file() for script in scripts)


@pytest.mark.parametrize(
    ("name", "steps", "samples"),
    [
        ("ad_l_jepa_kitti", 6_960, 111_360),  # 232 steps of 16 in each of 30 epochs
        ("occupancy_mae_kitti", 6_960, 111_360),  # four forward passes of 4 frames
        ("second_tiny", 300, 600),
        ("tmva_net_carrada", None, None),
    ],
)
def test_steps_and_samples_of_a_config(
    cost_table: ModuleType, name: str, steps: int | None, samples: int | None
) -> None:
    size = cost_table.training_size(load_model_config(name).values)
    assert (size.steps, size.samples) == (steps, samples)


def test_gpu_hours(cost_table: ModuleType, tmp_path: Path) -> None:
    row = {"config": "ad_l_jepa_kitti", "case": "ours, bf16", "batch_size": 16, "peak_memory_mib": 2048.0}
    other = {**row, "case": "upstream's, float32", "samples_per_second": 1.0}
    radar = {**row, "config": "tmva_net_carrada", "case": "bf16", "samples_per_second": 100.0}
    content: dict[str, Any] = {**CONTENT, "rows": [{**row, "samples_per_second": 111_360 / 3600 / 2}, other, radar]}
    (tmp_path / "pretrain_step.json").write_text(json.dumps(content))
    lines = cost_table.gpu_rows({"gpu": cost_table.gpu_figures(tmp_path)})
    (mine,) = [line for line in lines if "`ad_l_jepa_kitti`" in line]
    assert mine.endswith("| 6,960 | 111,360 | bf16 | 15.5 | 2.0 | 2.0 GiB at batch 16 |")
    assert any("`tmva_net_carrada`" in line and "2.8 per million samples" in line for line in lines)
    assert any("`second_kitti`" in line and "not measured" in line for line in lines)


@pytest.mark.parametrize("change", [{"small": True}, {"device": {"name": "c", "kind": "cpu"}}])
def test_only_full_sizes_on_a_gpu_enter_the_table(
    cost_table: ModuleType, tmp_path: Path, change: dict[str, Any]
) -> None:
    (tmp_path / "train_step.json").write_text(json.dumps({**CONTENT, **change}))
    with pytest.raises(ValueError, match="full sizes on a GPU only"):
        cost_table.gpu_figures(tmp_path)


def test_the_page_is_what_its_figures_say(cost_table: ModuleType, repository: Path) -> None:
    figures = json.loads((repository / "docs/results/training_costs.json").read_text())
    assert (repository / "docs/costs.md").read_text() == cost_table.page(figures)
