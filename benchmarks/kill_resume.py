"""Kill a real training run 20 times with SIGKILL, resume it each time, and compare with the run that was left alone.

Half of the kills come at a random moment of a step, half while a checkpoint is being written. After each one the newest
complete checkpoint must be at least as new as before, and in the end every tensor of model and optimizer must be equal
to the bit. Exits with 1 otherwise. ``python benchmarks/kill_resume.py [--config CONFIG] [--kills N]``
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from adperception.checkpoint.layout import newest_complete

REPOSITORY = Path(__file__).resolve().parent.parent
STEP_LIMIT_SECONDS = 300.0
QUICKSTART_SECTIONS = ("prepare", "train_dataset", "val_dataset")


@dataclass(frozen=True)
class Kill:
    """What was found after a kill.

    Attributes:
        moment: ``"step"`` or ``"save"``.
        unfinished: whether a half-written checkpoint was left behind.
        before: newest complete step seen before the kill.
        after: newest complete step found after it.
    """

    moment: str
    unfinished: bool
    before: int
    after: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="default: the quickstart on 12 simulated frames")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, help="length of the run (default: 4 per kill)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--work-dir", type=Path, help="default: a temporary folder")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = arguments.work_dir or Path(temporary)
        return compare(arguments, folder)


def compare(arguments: argparse.Namespace, folder: Path) -> int:
    """Both runs, the table, the verdict as an exit code."""
    steps = arguments.steps or 4 * arguments.kills
    train = f"train.steps={steps}"
    common = [train, "checkpoint.every_steps=1", "evaluations=[]", "checkpoint.best=None", *arguments.cfg_options]
    if arguments.config is None:
        common += ["prepare.frames=12", *(f"{key}.root={folder / 'data'}" for key in QUICKSTART_SECTIONS)]
    config: Path = arguments.config or REPOSITORY / "configs" / "quickstart.py"
    command = [sys.executable, str(REPOSITORY / "tools/train.py"), str(config), "--device", "cpu"]
    whole, killed = folder / "whole", folder / "killed"
    began = time.perf_counter()
    subprocess.run(
        [*command, "--work-dir", str(whole), "--cfg-options", *common], check=True, stdout=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - began
    print(f"uninterrupted: {steps} steps in {seconds:.0f} s", flush=True)
    draw = random.Random(arguments.seed)
    print(
        f"{'kill':>4}  {'moment':6}  {'unfinished save':15}  {'complete before':>15}  {'complete after':>14}",
        flush=True,
    )
    lost = 0
    for number in range(arguments.kills):
        resume = ["--resume"] if newest_step(killed) else []
        run = [*command, "--work-dir", str(killed), *resume, "--cfg-options", *common]
        kill = kill_once(run, killed, ("step", "save")[number % 2], seconds / steps, draw)
        lost += kill.after < kill.before
        left = "yes" if kill.unfinished else "no"
        print(f"{number + 1:>4}  {kill.moment:6}  {left:15}  {kill.before:>15}  {kill.after:>14}", flush=True)
    subprocess.run(
        [*command, "--work-dir", str(killed), "--resume", "--cfg-options", *common],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    different = differing_tensors(whole, killed, steps)
    print(
        f"{arguments.kills} kills, {lost} lost a complete checkpoint; {len(different)} tensors differ at step {steps}"
    )
    if different:
        print("different: " + ", ".join(different[:5]))
    return 1 if lost or different else 0


def kill_once(command: list[str], work_dir: Path, moment: str, step_seconds: float, draw: random.Random) -> Kill:
    """Start the run, let it save once or twice, and kill it with everything it started."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    goal = newest_step(work_dir) + draw.randint(1, 2)
    deadline = time.monotonic() + STEP_LIMIT_SECONDS
    while newest_directory(work_dir) < goal:
        check_alive(process, deadline)
        time.sleep(0.001)
    # Checked before the moment is chosen: a save takes less time than reading the last one.
    before = newest_step(work_dir)
    if moment == "step":
        time.sleep(draw.random() * step_seconds)
    else:
        while not any((work_dir / "checkpoints").glob(".step_*.tmp")):
            check_alive(process, deadline)
        time.sleep(draw.random() * 0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    unfinished = any((work_dir / "checkpoints").glob(".step_*.tmp"))
    return Kill(moment, unfinished, before, newest_step(work_dir))


def check_alive(process: subprocess.Popen[bytes], deadline: float) -> None:
    if process.poll() is not None:
        raise SystemExit(f"the run ended by itself with code {process.returncode} before it could be killed")
    if time.monotonic() > deadline:
        os.killpg(process.pid, signal.SIGKILL)
        raise SystemExit(f"the run saved nothing within {STEP_LIMIT_SECONDS:.0f} s")


def newest_directory(work_dir: Path) -> int:
    """Newest step that has a checkpoint folder."""
    found = (work_dir / "checkpoints").glob("step_*")
    return max((int(path.name.removeprefix("step_")) for path in found), default=0)


def newest_step(work_dir: Path) -> int:
    """Newest step whose checkpoint verifies."""
    found = newest_complete(work_dir / "checkpoints", lambda message: None)
    return 0 if found is None else int(found[1]["step"])


def differing_tensors(first: Path, second: Path, step: int) -> list[str]:
    """Names of tensors that are not equal to the bit."""
    different = []
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, two = (load_file(run / "checkpoints" / f"step_{step:08d}" / name) for run in (first, second))
        names = sorted({*one, *two})
        different += [key for key in names if key not in one or key not in two or not torch.equal(one[key], two[key])]
    return different


if __name__ == "__main__":
    sys.exit(main())
