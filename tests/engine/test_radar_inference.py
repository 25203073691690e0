"""Radar inference: how files are read, windows of moments, grids that do not fit, a real ADC frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import adperception
from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.save import write_tensors
from adperception.engine.radar_inference import RadarNetwork, holds_radar_model
from adperception.engine.radar_input import read_moments, read_radar_description
from adperception.models.radar.erase_net import ERASENet
from adperception.simulation.fmcw import FMCWRadar, range_azimuth_doppler
from adperception.structures import CARRADA_GRID, RadarBatch, RadarGrid

from toy_detector import ToyDetector
from toy_radar import TOY_GRID, ToyRadarModel, toy_frame

RADAR = FMCWRadar(samples=16, loops=8, azimuth_bins=24, sample_rate_hz=1e6)


def toy_weights(path: Path, moments: int = 2, grid: RadarGrid | None = TOY_GRID) -> Path:
    torch.manual_seed(0)
    model = ToyRadarModel(moments)
    model.before_training([toy_frame(number, moments, 0) for number in range(4)])
    config = {"type": "ToyRadarModel", "moments": moments}
    described = {"model_config": config, "radar_grid": None if grid is None else grid.to_dict()}
    write_tensors(path, model.state_dict(), described)
    return path


def toy_cubes(moments: int = 2) -> np.ndarray:
    cubes = toy_frame(1, moments, 1).cubes
    assert cubes is not None
    return cubes


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def network(tmp_path: Path) -> RadarNetwork:
    return RadarNetwork(toy_weights(tmp_path / "toy.safetensors"), "cpu")


def test_files_arrays_and_stacks_are_the_same(network: RadarNetwork, tmp_path: Path) -> None:
    cubes = toy_cubes()
    for number, cube in enumerate(cubes):
        np.save(tmp_path / f"{number}.npy", cube)
    np.save(tmp_path / "both.npy", cubes * np.exp(1j * np.float32(0.7)))
    batch = RadarBatch.from_frames([toy_frame(1, 2, 1)])
    expected = network.model.predict(batch)[0]
    for source in ([tmp_path / "0.npy", tmp_path / "1.npy"], tmp_path / "both.npy", cubes, list(cubes)):
        found = network(source)
        assert found.prediction.masks is not None
        assert expected.masks is not None
        assert np.array_equal(found.prediction.masks.range_angle, expected.masks.range_angle)
        assert not found.notes
    assert network(tmp_path / "both.npy").frame_id == "both.npy[1]"
    assert "complex cube, 16 x 24 x 8 cells of 1 m and 1.5 m/s" in network(tmp_path / "both.npy").reading


def test_missing_moments_are_repeated_and_said(network: RadarNetwork) -> None:
    newest = toy_cubes()[-1]
    once, twice = network(newest), network(np.stack([newest, newest]))
    assert "looks at 2 moments, 1 given: the oldest is repeated 1 times" in once.notes[0]
    assert once.prediction.masks is not None
    assert twice.prediction.masks is not None
    assert np.array_equal(once.prediction.masks.range_doppler, twice.prediction.masks.range_doppler)


def test_sequence_slides_over_the_moments(network: RadarNetwork) -> None:
    cubes = toy_cubes(4)
    results = list(network.sequence(cubes))
    assert [result.frame_id for result in results] == ["array[1]", "array[2]", "array[3]"]
    alone = network(cubes[1:3])
    assert alone.prediction.masks is not None
    assert results[1].prediction.masks is not None
    assert np.array_equal(results[1].prediction.masks.range_angle, alone.prediction.masks.range_angle)
    assert len(list(network.sequence(cubes[:1]))) == 1


def test_other_axis_orders_of_a_sensor_file(network: RadarNetwork, tmp_path: Path) -> None:
    content = {"grid": TOY_GRID.to_dict(), "axes": ["doppler", "range", "azimuth"], "range_order": "near_first"}
    sensor = write_json(tmp_path / "sensor.json", content)
    cubes = toy_cubes()
    stored = cubes[:, ::-1].transpose(0, 3, 1, 2)
    found, expected = network(stored, sensor=sensor), network(cubes)
    assert np.array_equal(found.views.range_doppler, expected.views.range_doppler)
    with pytest.raises(ValueError, match=r"shape \(8, 16, 24\) fits nothing: a cube \(range, azimuth, doppler\) has"):
        network(stored)


def test_raw_samples_go_through_the_signal_chain(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    adc = (rng.integers(-500, 500, (2, *RADAR.adc_shape)) + 1j * rng.integers(-500, 500, (2, *RADAR.adc_shape))).astype(
        np.complex64
    )
    sensor = write_json(tmp_path / "sensor.json", {**RADAR.to_dict(), "lanes": 4})
    network = RadarNetwork(toy_weights(tmp_path / "toy.safetensors", grid=RADAR.grid), "cpu")
    cube = range_azimuth_doppler(adc[1], RADAR)
    expected = network(np.stack([range_azimuth_doppler(a, RADAR).magnitude() for a in adc]))
    unsigned = np.mod(adc.real, 65536) + 1j * np.mod(adc.imag, 65536)
    # Four lanes: sample after sample, the real parts of all receivers, then their imaginary parts.
    chirps = adc.reshape(2, RADAR.loops, RADAR.transmitters, RADAR.receivers, RADAR.samples)
    words = np.stack([chirps.real, chirps.imag], axis=-1).transpose(0, 1, 2, 4, 5, 3).astype("<i2")
    words.tofile(tmp_path / "adc_data.bin")
    for source in (adc, unsigned, tmp_path / "adc_data.bin"):
        found = network(source, sensor=sensor)
        np.testing.assert_allclose(found.views.range_angle, expected.views.range_angle, rtol=1e-4)
        assert "ADC frame of 8 loops, 8 antennas, 16 samples" in found.reading
    assert "unsigned" in network(unsigned, sensor=sensor).reading
    assert found.frame_id == "adc_data.bin[1]"
    assert network(cube.values, sensor=sensor).reading.startswith("complex cube")
    with pytest.raises(ValueError, match="raw samples need a sensor file"):
        network(adc)
    with pytest.raises(ValueError, match="a TI recording needs a sensor file"):
        network(tmp_path / "adc_data.bin")
    (tmp_path / "short.bin").write_bytes(words.tobytes()[:-2])
    with pytest.raises(ValueError, match=r"8,190 bytes are 2\.000 frames of 4,096"):
        network(tmp_path / "short.bin", sensor=sensor)
    with pytest.raises(ValueError, match="NaN or infinite samples"):
        network(np.full(RADAR.adc_shape, np.nan + 0j), sensor=sensor)


def test_a_shape_that_fits_both_needs_a_word(tmp_path: Path) -> None:
    radar = FMCWRadar(samples=8, loops=8, azimuth_bins=8)
    sensor = read_radar_description(write_json(tmp_path / "sensor.json", radar.to_dict()))
    values = np.ones((8, 8, 8), dtype=np.complex64)
    with pytest.raises(ValueError, match=r"could be a cube as well as raw samples. Say which with kind \(--kind\)"):
        next(read_moments([values], sensor))
    assert next(read_moments([values], sensor, kind="cube")).reading.startswith("complex cube")
    assert next(read_moments([values], sensor, kind="adc")).reading.startswith("ADC frame")


def test_another_radar_is_refused_naming_both_grids(network: RadarNetwork, tmp_path: Path) -> None:
    other = RadarGrid(16, 24, 8, range_bin_m=0.5, doppler_bin_mps=1.5)
    sensor = write_json(tmp_path / "sensor.json", {"grid": other.to_dict()})
    with pytest.raises(ValueError, match=r"Input: RadarGrid\(.*range_bin_m=0.5.*; model: RadarGrid\(.*range_bin_m=1.0"):
        network(toy_cubes(), sensor=sensor)
    with pytest.raises(ValueError, match=r"shape \(256, 256, 64\) fits nothing: .*\(16, 24, 8\)"):
        network(np.ones(CARRADA_GRID.shape, dtype=np.float32))


def test_bad_input(network: RadarNetwork, tmp_path: Path) -> None:
    cubes = toy_cubes()
    broken = cubes.copy()
    broken[1, 0, 0, :3] = np.nan
    with pytest.raises(ValueError, match=r"array\[1\]: 3 of 3,072 values are NaN or infinite"):
        network(broken)
    with pytest.raises(ValueError, match=r"the least is -20; a cube holds .* \(not decibels\)"):
        network(np.full(TOY_GRID.shape, -20.0))
    with pytest.raises(ValueError, match="A view of two axes is not enough"):
        network(cubes[0, :, :, 0])
    with pytest.raises(ValueError, match="at least one cube"):
        network([])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickled objects"):
        network(tmp_path / "objects.npy")
    np.save(tmp_path / "whole.npy", cubes[0])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short"):
        network(tmp_path / "cut.npy")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        network(tmp_path / "missing.npy")
    with pytest.raises(ValueError, match=r"a .npy file or a .bin recording"):
        network(tmp_path / "cube.mat")
    with pytest.raises(FileNotFoundError, match="there is no sensor file"):
        network(cubes, sensor=tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="unknown slop"):
        network(cubes, sensor=write_json(tmp_path / "sensor.json", {"slop": 1}))
    with pytest.raises(ValueError, match="ToyRadarModel has no detector of its own"):
        network(cubes, objects_only=True)


def test_written_files(network: RadarNetwork, tmp_path: Path) -> None:
    result = network(toy_cubes())
    json_file, masks_file, picture = result.write(tmp_path / "out")
    written = json.loads(json_file.read_text())
    assert written["objects"] == result.objects
    assert RadarGrid(**written["grid"]) == TOY_GRID
    with np.load(masks_file, allow_pickle=False) as masks:
        assert masks["range_doppler"].shape == (16, 8)
        assert masks["range_angle"].shape == (16, 24)
        assert masks["classes"].tolist() == ["background", "pedestrian", "cyclist", "car"]
    assert picture.stat().st_size > 10_000
    assert network(toy_cubes(), min_score=0.9).objects == []
    assert "no object found" in network(toy_cubes(), min_score=0.9).table()


def test_infer_dispatches_on_the_weights(tmp_path: Path) -> None:
    weights = toy_weights(tmp_path / "toy.safetensors")
    assert holds_radar_model(weights)
    result = adperception.infer(toy_cubes(), weights, min_score=0.1, device="cpu")
    assert result.frame_id == "array[1]"
    with pytest.raises(ValueError, match="holds a radar model: channels does not apply"):
        adperception.infer(toy_cubes(), weights, channels=["x"])
    other = tmp_path / "other.safetensors"
    write_tensors(other, ToyDetector().state_dict(), {"model_config": {"type": "ToyDetector"}})
    assert not holds_radar_model(other)
    with pytest.raises(ValueError, match="no radar model: give one scan, and no sensor"):
        adperception.infer("scan.pcd", other, sensor="sensor.json")
    with pytest.raises(CheckpointError, match="holds a ToyDetector, which is no radar model"):
        RadarNetwork(other)


@pytest.mark.real_data
def test_real_adc_frame_through_an_untrained_detector(real_data: Path, tmp_path: Path) -> None:
    """Geometry only: the frame of the OpenRadar project passes from ADC samples to objects and masks."""
    radar = FMCWRadar.preset("ti_indoor")
    options = {"cube_shape": radar.grid.shape, "moments": 1, "normalization": "carrada_tvt"}
    config = {**options, "phases": [1.0, 0.0, 0.0], "score_threshold": 0.05}
    weights = tmp_path / "erase_net.safetensors"
    write_tensors(weights, ERASENet(**config).state_dict(), {"model_config": {"type": "ERASENet", **config}})
    sensor = write_json(tmp_path / "ti.json", {"preset": "ti_indoor"})
    result = RadarNetwork(weights, "cpu")(real_data / "radar/openradar/doppler_example_1.npy", sensor=sensor)
    assert "unsigned 16-bit numbers taken as signed; 128 x 256 x 128 cells" in result.reading
    assert result.prediction.objects is not None
    assert result.views.range_doppler.shape == (128, 128)
    # The strongest mover of the recording stands out of the view that the model got: range bin 60 or 61, Doppler +7.
    near = result.views.range_doppler[55:70, 64 + 4 : 64 + 10]
    row, column = np.unravel_index(near.argmax(), near.shape)
    assert 55 + row in (60, 61)
    assert column + 4 == 7
    assert len(result.write(tmp_path / "out")) == 2  # it only detects, so there are no masks
