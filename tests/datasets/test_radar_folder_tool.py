"""data_tools/radar_folder.py: describe, look, process."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from adperception.datasets import RadarFolder
from adperception.datasets.formats.radar_sensor import read_radar_sensor
from adperception.simulation.fmcw import FMCWRadar, Scatterers, range_azimuth_doppler, simulate_adc

RADAR = FMCWRadar.preset("carrada_small")


@pytest.fixture
def tool(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("radar_folder_tool", repository / "data_tools/radar_folder.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def adc(range_m: float, seed: int) -> np.ndarray:
    """A standing reflector, whole numbers as a converter gives them."""
    point = Scatterers(np.array([range_m]), np.zeros(1), np.array([0.2]), np.array([900.0]))
    samples = simulate_adc(point, RADAR, 100.0, np.random.default_rng(seed))
    return (np.round(samples.real) + 1j * np.round(samples.imag)).astype(np.complex64)


@pytest.fixture
def cubes(tmp_path: Path) -> Path:
    folder = tmp_path / "mine/drive"
    folder.mkdir(parents=True)
    for number in range(3):
        np.save(folder / f"{number}.npy", range_azimuth_doppler(adc(10, number), RADAR).values)
    return folder.parent


def test_init_by_preset_and_by_hand(tool: ModuleType, cubes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["init", str(cubes), "--preset", "carrada_small"]) == 0
    out = capsys.readouterr().out
    assert "cubes of (64, 64, 16) (range, azimuth, doppler), 50 m, +-13.43 m/s" in out
    assert "0.npy fits" in out
    sensor = read_radar_sensor(cubes / "sensor.json")
    assert sensor.grid == RADAR.grid
    assert FMCWRadar.from_dict(sensor.radar) == RADAR
    assert tool.main(["init", str(cubes), "--preset", "carrada_small"]) == 1
    assert "is there already" in capsys.readouterr().err
    by_hand = ["--cells", "16", "64", "64", "--range-bin", "0.5", "--doppler-bin", "0.2", "--overwrite"]
    assert tool.main(["init", str(cubes), *by_hand]) == 1
    assert "0.npy: shape (64, 64, 16), expected (16, 64, 64) (range, azimuth, doppler)" in capsys.readouterr().err
    assert read_radar_sensor(cubes / "sensor.json") == sensor
    turned = ["--axes", "azimuth", "doppler", "range", "--range-order", "near_first"]
    assert tool.main(["init", str(cubes), *by_hand, *turned]) == 0
    assert read_radar_sensor(cubes / "sensor.json").grid.shape == (16, 64, 64)


@pytest.mark.parametrize("arguments", [[], ["--preset", "carrada", "--range-bin", "1"], ["--cells", "1", "2", "3"]])
def test_init_wants_one_way(
    tool: ModuleType, cubes: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["init", str(cubes), *arguments]) == 1
    assert "either --preset, or all of --cells" in capsys.readouterr().err
    assert not (cubes / "sensor.json").exists()


def test_check(tool: ModuleType, cubes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["check", str(cubes)]) == 1
    assert "radar_folder.py init" in capsys.readouterr().err
    tool.main(["init", str(cubes), "--preset", "carrada_small"])
    (cubes / "objects.csv").write_text(
        "frame,class,range_m,azimuth_deg,velocity_mps\ndrive/0,car,10,11.5,0\ndrive/1,car,10,11.5,0\ndrive/2,,,,\n"
    )
    labels = ["--classes", "car", "person", "--objects", "objects.csv"]
    assert tool.main(["check", str(cubes), *labels]) == 0
    out = capsys.readouterr().out
    assert "3 frames of 1 sequences" in out
    assert "most power in Doppler column 8 (standstill is 8)" in out
    assert "hint" not in out
    assert "car               2 objects" in out
    assert "1 frames without an object" in out

    bad = np.load(cubes / "drive/1.npy")
    bad[3, 3, 3] = np.nan
    np.save(cubes / "drive/1.npy", bad)
    assert tool.main(["check", str(cubes), *labels]) == 1
    out = capsys.readouterr().out
    assert "2 frames read" in out
    assert "ERROR: " in out
    assert "1.npy: 1 of 65,536 values are NaN" in out


def test_check_hints_at_a_wrong_orientation(tool: ModuleType, cubes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main(["init", str(cubes), "--preset", "carrada_small"])
    for path in (cubes / "drive").iterdir():
        np.save(path, np.fft.ifftshift(np.load(path), axes=2)[::-1])
    assert tool.main(["check", str(cubes)]) == 0
    out = capsys.readouterr().out
    assert "Is the Doppler transform not shifted" in out
    assert "Is range_order in sensor.json right?" in out


def write_bin(path: Path, frames: list[np.ndarray]) -> None:
    """Two lanes: two real parts, two imaginary parts."""
    pairs = np.stack(frames).reshape(-1, 2)
    np.stack([pairs.real, pairs.imag], axis=1).astype("<i2").tofile(path)


def test_process(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording of the capture card and an array of frames become two sequences that RadarFolder reads."""
    source, out = tmp_path / "recordings", tmp_path / "out"
    source.mkdir()
    frames = [adc(10, 0), adc(20, 1)]
    write_bin(source / "card.bin", frames)
    np.save(source / "array.npy", np.stack(frames[:1]))
    (tmp_path / "radar.json").write_text(json.dumps({"preset": "carrada_small", "lanes": 2}))
    assert tool.main(["process", str(source), str(out), "--radar", str(tmp_path / "radar.json")]) == 0
    assert f"{out / 'card'}: 2 cubes" in capsys.readouterr().out
    dataset = RadarFolder(out)
    assert list(dataset.frame_ids) == ["array/000000", "card/000000", "card/000001"]
    assert dataset.grid == RADAR.grid
    for index, range_m in ((0, 10), (1, 10), (2, 20)):
        row, column, doppler = np.unravel_index(dataset.read(index).cubes[0].argmax(), RADAR.grid.shape)
        assert abs(RADAR.grid.range_m(row) - range_m) < RADAR.range_bin_m
        assert abs(RADAR.grid.sin_azimuth(column) - 0.2) < 2 / 64
        assert doppler == 8
    assert tool.main(["process", str(source), str(out), "--radar", "carrada_small"]) == 1
    assert "is there already" in capsys.readouterr().err


def test_process_goes_on_after_a_bad_recording(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "recordings", tmp_path / "out"
    source.mkdir()
    write_bin(source / "cut.bin", [adc(10, 0)])
    (source / "cut.bin").write_bytes((source / "cut.bin").read_bytes()[:-8])
    np.save(source / "good.npy", adc(10, 0))
    assert tool.main(["process", str(source), str(out), "--radar", "carrada_small"]) == 1
    text = capsys.readouterr().out
    assert "ERROR: " in text
    assert "cut.bin" in text
    assert len(RadarFolder(out)) == 1
    assert tool.main(["process", str(tmp_path / "none"), str(out), "--radar", "carrada_small", "--overwrite"]) == 1
    assert "there is no .npy or .bin recording" in capsys.readouterr().err
    (tmp_path / "grid.json").write_text(json.dumps({"grid": RADAR.grid.to_dict()}))
    assert tool.main(["process", str(source), str(out), "--radar", str(tmp_path / "grid.json"), "--overwrite"]) == 1
    assert "describes no radar" in capsys.readouterr().err
