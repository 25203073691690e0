"""Packed sequences hold what the loose files hold, and say so when they do not."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from adperception.datasets.formats import carrada_pack
from adperception.datasets.formats.carrada import cube_file
from adperception.datasets.formats.carrada_files import CarradaFiles
from adperception.datasets.formats.carrada_pack import (
    LOG_FLOAT16_BOUND_DB,
    CarradaPacks,
    decode_log,
    encode_log,
    pack_coding,
    pack_file,
    pack_sequence,
)
from adperception.structures import RadarGrid

from radar_trees import GRID, SPLITS, make_tree

SEQUENCE = next(iter(SPLITS))
FRAMES = [f"{i:06d}" for i in range(5)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CarradaFiles:
    root = make_tree(tmp_path_factory.mktemp("pack"), frames=5)
    return CarradaFiles(root, root.parent / "Carrada_RAD", GRID)


def test_the_error_of_log_float16_over_all_magnitudes() -> None:
    """From below the smallest to above the largest released magnitude; the rounding of float16, and nothing else."""
    magnitude = np.geomspace(1e-4, 2e5, 200_000).astype(np.float32)
    assert magnitude.max() > np.finfo(np.float16).max  # why it is not X itself
    before, after = (
        10 * np.log10(x.astype(np.float64) ** 2 + 1) for x in (magnitude, decode_log(encode_log(magnitude)))
    )
    error = np.abs(after - before)
    assert error.max() <= LOG_FLOAT16_BOUND_DB * 1.0001
    assert error.max() > 0.9 * LOG_FLOAT16_BOUND_DB
    assert error[before < 64].max() <= LOG_FLOAT16_BOUND_DB / 2 * 1.0001
    assert decode_log(encode_log(np.zeros(3, dtype=np.float32))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("compression", ["none", "lzf", "gzip"])
def test_lossless_windows_are_those_of_the_loose_files(files: CarradaFiles, compression: str, tmp_path: Path) -> None:
    assert pack_sequence(files, tmp_path, SEQUENCE, FRAMES, "lossless", compression) == 0  # type: ignore[arg-type]
    packs = CarradaPacks(tmp_path, GRID)
    window = FRAMES[1:4]
    np.testing.assert_array_equal(packs.cubes(SEQUENCE, window), files.cubes(SEQUENCE, window))
    for part in ("dense", "sparse"):
        ours, theirs = packs.masks(SEQUENCE, part, FRAMES[3]), files.masks(SEQUENCE, part, FRAMES[3])
        np.testing.assert_array_equal(ours.range_angle, theirs.range_angle)
        np.testing.assert_array_equal(ours.range_doppler, theirs.range_doppler)
    for apart in (window, [FRAMES[0], FRAMES[4]]):
        packed, loose = packs.views(SEQUENCE, apart), files.views(SEQUENCE, apart)
        assert packed.range_angle.dtype == np.float32
        np.testing.assert_array_equal(packed.range_angle, loose.range_angle)
        np.testing.assert_array_equal(packed.angle_doppler, loose.angle_doppler)
    with h5py.File(pack_file(tmp_path, SEQUENCE)) as file:
        assert file["views/range_angle"].dtype == np.float64
    assert packs.present(SEQUENCE, "cubes") == packs.present(SEQUENCE, "sparse") == set(FRAMES)


def test_log_float16_states_its_error(files: CarradaFiles, tmp_path: Path) -> None:
    error = pack_sequence(files, tmp_path, SEQUENCE, FRAMES, "log_float16")
    assert 0 < error <= LOG_FLOAT16_BOUND_DB
    with h5py.File(pack_file(tmp_path, SEQUENCE)) as file:
        assert file.attrs["max_error_db"] == error
        assert file["cubes"].dtype == np.float16
        assert file["cubes"].chunks == (1, *GRID.shape)  # a window reads its own frames and no others
    assert pack_coding(pack_file(tmp_path, SEQUENCE)) == "log_float16"
    before, after = (
        10 * np.log10(np.square(s.cubes(SEQUENCE, FRAMES)) + 1) for s in (files, CarradaPacks(tmp_path, GRID))
    )
    assert np.abs(before - after).max() <= error + 1e-4


def test_a_file_cut_short_is_named(files: CarradaFiles, tmp_path: Path) -> None:
    pack_sequence(files, tmp_path, SEQUENCE, FRAMES)
    path = pack_file(tmp_path, SEQUENCE)
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 600, 10, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"00\.h5: not a whole HDF5 file .*pack it again"):
            CarradaPacks(tmp_path, GRID).cubes(SEQUENCE, FRAMES[:2])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"00\.h5 does not exist. Pack the sequence"):
        CarradaPacks(tmp_path, GRID).cubes(SEQUENCE, FRAMES[:2])


def test_other_files_and_frames_are_refused(files: CarradaFiles, tmp_path: Path) -> None:
    pack_sequence(files, tmp_path, SEQUENCE, FRAMES)
    with pytest.raises(ValueError, match="has no frame '000009'"):
        CarradaPacks(tmp_path, GRID).views(SEQUENCE, ["000009"])
    with pytest.raises(ValueError, match=r"was packed with RadarGrid\(range_bins=32"):
        CarradaPacks(tmp_path, RadarGrid()).views(SEQUENCE, FRAMES)
    with h5py.File(pack_file(tmp_path, "other"), "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match=r"other\.h5: is no packed sequence of this version"):
        CarradaPacks(tmp_path, GRID).views("other", FRAMES)
    without = CarradaFiles(files.root, None, GRID)
    pack_sequence(without, tmp_path / "views", SEQUENCE, FRAMES)
    with pytest.raises(FileNotFoundError, match="was packed without cubes"):
        CarradaPacks(tmp_path / "views", GRID).present(SEQUENCE, "cubes")


def test_nothing_gets_its_name_before_it_was_compared(
    files: CarradaFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = carrada_pack.read_cube

    def other_the_second_time(path: Path, grid: RadarGrid) -> np.ndarray:
        seen.append(path)
        cube = real(path, grid)
        return cube + (seen.count(path) > 1)

    seen: list[Path] = []
    monkeypatch.setattr(carrada_pack, "read_cube", other_the_second_time)
    with pytest.raises(ValueError, match=r"frame 000000 does not read back"):
        pack_sequence(files, tmp_path, SEQUENCE, FRAMES)
    assert [p.name for p in tmp_path.iterdir()] == [f"{SEQUENCE}.h5.part"]


def test_nan_is_not_packed(tmp_path: Path) -> None:
    root = make_tree(tmp_path, frames=5)
    own = CarradaFiles(root, tmp_path / "Carrada_RAD", GRID)
    path = cube_file(tmp_path / "Carrada_RAD", SEQUENCE, "000002")
    cube = np.load(path)
    cube[0, 0, 0] = np.nan
    np.save(path, cube)
    with pytest.raises(ValueError, match=r"000002\.npy: 1 of 12,288 values are NaN"):
        pack_sequence(own, tmp_path / "out", SEQUENCE, FRAMES)
    assert not pack_file(tmp_path / "out", SEQUENCE).exists()


def test_open_files_do_not_travel_to_other_processes(files: CarradaFiles, tmp_path: Path) -> None:
    pack_sequence(files, tmp_path, SEQUENCE, FRAMES)
    packs = CarradaPacks(tmp_path, GRID)
    first = packs.cubes(SEQUENCE, FRAMES[:1])
    again = pickle.loads(pickle.dumps(packs))
    np.testing.assert_array_equal(again.cubes(SEQUENCE, FRAMES[:1]), first)
    before = packs._pack(SEQUENCE)
    packs._process -= 1  # as after a fork
    assert packs._pack(SEQUENCE) is not before
    packs.close()
