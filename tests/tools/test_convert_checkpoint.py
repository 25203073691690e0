from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from adperception.checkpoint.convert_ad_l_jepa import to_ad_l_jepa
from adperception.checkpoint.convert_mvrss import to_mvrss
from adperception.checkpoint.encoder_check import write_encoder_check
from adperception.checkpoint.kernel_layout import from_krsc
from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.load import read_metadata
from adperception.checkpoint.save import write_tensors
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.structures import VoxelGrid
from adperception.zoo import create_model, load_model

MODEL = "ad_l_jepa_small"
Convert = Callable[..., "Done"]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def convert(tool: Callable[[str], Callable[[list[str]], int]], capsys: pytest.CaptureFixture[str]) -> Convert:
    """Runs tools/convert_checkpoint.py in this process."""

    def run(*arguments: str | Path) -> Done:
        code = tool("convert_checkpoint")([str(a) for a in arguments])
        return Done(code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("layout", ["KRSC", "RSKC", "RSCK"])
def test_released_checkpoint_of_every_layout_and_back(convert: Convert, tmp_path: Path, layout: str) -> None:
    """Layouts that look alike where input and output channels are equal are told apart by the last convolution."""
    inverse = {"KRSC": (0, 1, 2, 3, 4), "RSKC": (1, 2, 3, 0, 4), "RSCK": (1, 2, 3, 4, 0)}[layout]
    original = create_model(MODEL).state_dict()
    theirs = {
        k: v.permute(inverse).contiguous() if v.dim() == 5 else v for k, v in to_ad_l_jepa(original, 6960).items()
    }
    torch.save({"model_state": theirs, "epoch": 30, "version": "pcdet+0.5.2"}, tmp_path / "released.pth")
    ours = tmp_path / "ours.safetensors"
    done = convert(tmp_path / "released.pth", ours, "--model", MODEL)
    assert done.returncode == 0, done.stderr
    assert f"167 tensors, kernel layout {layout} -> KRSC, step 6960" in done.stdout
    loaded = create_model(MODEL, ours).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in original.items())
    assert read_metadata(ours)["model_config"]["type"] == "ADLJEPA"
    if layout == "KRSC":
        back = convert(ours, tmp_path / "back.pth", "--to", "ad_l_jepa", "--global-step", "6960")
        assert back.returncode == 0, back.stderr
        returned = torch.load(tmp_path / "back.pth", weights_only=True)["model_state"]
        assert set(returned) == set(theirs)
        assert all(torch.equal(returned[k], v) for k, v in theirs.items())


def test_direction_offset_of_the_config_decides(convert: Convert, tmp_path: Path, repository: Path) -> None:
    """mmdetection3d's default head fits a config with the matching option only; the option goes into the file."""
    config = tmp_path / "second_from_mmdetection3d.py"
    base = repository / "configs/second/second_small.py"
    config.write_text(f'_base_ = "{base}"\nmodel = dict(direction_offset=-1.5708)\n')
    original = create_model(str(config))
    write_tensors(tmp_path / "w.safetensors", original.state_dict(), {"kernel_layout": "KRSC"})
    theirs = tmp_path / "theirs.pth"
    done = convert(tmp_path / "w.safetensors", theirs, "--to", "mmdetection3d", "--model", config)
    assert "for an anchor head dir_offset=-1.5708" in done.stdout, done.stderr

    refused = convert(theirs, tmp_path / "ours.safetensors", "--model", "second_small")
    assert refused.returncode == 1
    assert "model.direction_offset=-1.5708; or" in refused.stderr
    done = convert(theirs, tmp_path / "ours.safetensors", "--model", config)
    assert done.returncode == 0, done.stderr
    loaded = load_model(tmp_path / "ours.safetensors")
    assert loaded.direction_offset == -1.5708
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in original.state_dict().items())


def test_other_checkpoints_are_named(convert: Convert, tmp_path: Path) -> None:
    torch.save({"model_state": {"dense_head.weight": torch.zeros(1)}}, tmp_path / "detector.pth")
    done = convert(tmp_path / "detector.pth", tmp_path / "ours.safetensors", "--model", MODEL)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'detector.pth'}: its tensor names are of no library that can")


def test_the_command_of_the_error_message_works_and_a_pair_proves_the_result(convert: Convert, tmp_path: Path) -> None:
    """A detector of OpenPCDet without --model: what comes out starts another detector's encoder."""
    grid = VoxelGrid((0.0, 0.0, 0.0, 1.6, 1.6, 4.0), (0.1, 0.1, 0.1))
    encoder = VoxelBackBone8x(4, grid)
    state = from_krsc({f"backbone_3d.{k}": v for k, v in encoder.state_dict().items()}, "RSCK")
    torch.save({"model_state": state}, tmp_path / "second.pth")
    write_encoder_check(tmp_path / "pair.npz", encoder.state_dict())
    command = ["--from", "openpcdet", tmp_path / "second.pth"]
    done = convert(*command, "--verify", tmp_path / "pair.npz")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"wrote {tmp_path / 'second.safetensors'}: 72 tensors, kernel layout RSCK -> KRSC, step None"
    assert "kernel layout inferred from shapes, verified: the encoder's output differs by" in lines[1]
    assert "no model can be built from it alone" in lines[2]
    again = convert(*command)
    assert again.returncode == 1
    assert "second.safetensors exists already" in again.stderr
    metadata = read_metadata(tmp_path / "second.safetensors")
    assert metadata["encoders"] == {"backbone_3d": "backbone_3d."}
    with pytest.raises(CheckpointError, match=r"does not say which model it holds .*--model"):
        load_model(tmp_path / "second.safetensors")


def test_radar_network_has_no_kernel_layout(convert: Convert, tmp_path: Path) -> None:
    original = to_mvrss(create_model("mv_net_carrada").state_dict())
    theirs, ours, other = tmp_path / "model.pt", tmp_path / "ours.safetensors", tmp_path / "x.safetensors"
    torch.save(original, theirs)
    done = convert(theirs, ours, "--from", "mvrss", "--model", "mv_net_carrada")
    assert f"{len(original) + 2} tensors, from mvrss" in done.stdout, done.stderr
    assert "kernel" not in done.stdout
    assert type(load_model(ours)).__name__ == "MVNet"
    assert convert(ours, tmp_path / "back.pt", "--to", "mvrss").returncode == 0
    assert set(torch.load(tmp_path / "back.pt", weights_only=True)) == set(original)
    for options, message in [
        (["--kernel-layout", "KRSC"], "neither a sparse encoder nor sparse kernels"),
        (["--write-pair", tmp_path / "x.npz"], "mvrss has none"),
        (["--model", "tmva_net_carrada"], "does not fit tmva_net_carrada"),
    ]:
        assert message in convert(theirs, other, *options).stderr
        assert not other.exists()
