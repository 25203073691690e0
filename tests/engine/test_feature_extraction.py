from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from adperception.datasets.folder import Folder
from adperception.engine.feature_extraction import extract_features
from adperception.zoo import create_model

RANGE = [0.0, -3.2, -3.0, 6.4, 3.2, 1.0]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("ad_l_jepa_small", point_cloud_range=RANGE).eval()


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "clouds"
    for name in ("a/000001.bin", "a/000002.bin"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        points = rng.uniform([0, -3, -2.9, 0], [6, 3, 0.9, 1], size=(300, 4)).astype(np.float32)
        points.tofile(root / name)
    return root


def test_maps_are_those_of_encode_and_described(model, folder, tmp_path):
    seen = []
    clouds = Folder(folder)
    done = extract_features(model, clouds, tmp_path / "out", progress=lambda name, notes: seen.append(name))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in done.written] == ["a/000001.npy", "a/000002.npy"]
    assert seen == ["a/000001.bin", "a/000002.bin"]
    for index, path in enumerate(done.written):
        stored = np.load(path, allow_pickle=False)
        np.testing.assert_array_equal(stored, model.encode(clouds.read(index).cloud)[0].numpy())
        assert stored.shape == (256, 8, 8)
        assert stored.any()
    about = json.loads((tmp_path / "out" / "bev_features.json").read_text())
    assert about["shape"] == [256, 8, 8]
    assert about["cell_size_m"] == pytest.approx([0.8, 0.8])
    assert about["x_range_m"] == [0.0, 6.4]
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_safetensors_in_half_precision(model, folder, tmp_path):
    clouds = Folder(folder)
    done = extract_features(model, clouds, tmp_path, file_format="safetensors", precision="float16")
    bev = load_file(done.written[0])["bev"]
    assert bev.dtype == np.float16
    np.testing.assert_allclose(bev, model.encode(clouds.read(0).cloud)[0].numpy(), rtol=1e-3, atol=1e-4)


def test_one_bad_cloud_is_reported_and_the_rest_is_written(model, folder, tmp_path):
    (folder / "a" / "000003.bin").write_bytes(b"123")
    far = np.full((5, 4), 900.0, dtype=np.float32)
    far.tofile(folder / "b.bin")
    done = extract_features(model, Folder(folder), tmp_path / "out")
    assert len(done.written) == 2
    assert set(done.failures) == {"a/000003.bin", "b.bin"}
    assert "000003.bin" in done.failures["a/000003.bin"]
    assert "range" in done.failures["b.bin"]


def test_equal_targets_and_other_models_are_refused(model, folder, tmp_path):
    np.save(folder / "a" / "000001.npy", np.zeros((1, 4), dtype=np.float32))
    with pytest.raises(ValueError, match=r"a/000001.bin and a/000001.npy would both be written"):
        extract_features(model, Folder(folder), tmp_path)
    with pytest.raises(ValueError, match="Linear has no BEV map to extract"):
        extract_features(torch.nn.Linear(1, 1), Folder(folder), tmp_path)


def test_tool(model, folder, tmp_path, repository):
    weights, config = tmp_path / "weights.safetensors", tmp_path / "tiny.py"
    save_file(model.state_dict(), weights)
    options = dict(type="ADLJEPA", point_cloud_range=RANGE, voxel_size=[0.1, 0.1, 0.1])
    config.write_text(f"model = {options!r}\n")
    command = [sys.executable, str(repository / "tools" / "extract_features.py"), "--model", str(config)]
    command += ["--checkpoint", str(weights), "--input", str(folder), "--out", str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 maps written" in done.stdout
    np.testing.assert_allclose(
        np.load(tmp_path / "out" / "a" / "000001.npy"), model.encode(Folder(folder).read(0).cloud)[0].numpy(), atol=1e-5
    )
    bad = subprocess.run([*command, "--input", str(tmp_path / "nowhere")], capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert bad.stderr.startswith("error: Folder: ")
