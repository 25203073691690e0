"""Simulated trees in CARRADA's layout: the same for any number of processes, and what the dataset reads from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import CARRADA
from adperception.datasets.carrada_check import check_carrada
from adperception.registry import PREPARATIONS, build
from adperception.simulation.fmcw import FMCWRadar
from adperception.simulation.radar_sequence import RadarSequence
from adperception.simulation.simulate_carrada import SimulateCARRADA
from adperception.structures import RadarMasks, RadarViews
from data_tools import simulate_radar

SPLITS = ("Train", "Validation", "Test")
OPTIONS = dict(frames=35, sequence_frames=6, radar="carrada_small", seed=3, splits=dict.fromkeys(SPLITS, 1 / 3))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated") / "tree"
    return build(PREPARATIONS, dict(type="SimulateCARRADA", root=root, packed="lossless", **OPTIONS))()  # type: ignore[no-any-return]


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.multi_process
def test_same_seed_same_bytes_for_any_number_of_workers(tree: Path, tmp_path: Path) -> None:
    other = SimulateCARRADA(tmp_path / "tree", workers=2, packed="lossless", **OPTIONS)()  # type: ignore[arg-type]
    assert files_of(other) == files_of(tree)
    again = SimulateCARRADA(tree, packed="lossless", **OPTIONS)  # type: ignore[arg-type]
    again()
    assert again.frames_per_second_per_core is None
    with pytest.raises(ValueError, match="ra_label_axis: there 'sin', wanted 'angle'"):
        SimulateCARRADA(tree, packed="lossless", ra_label_axis="angle", **OPTIONS)()  # type: ignore[arg-type]


def test_the_checker_is_content(tree: Path) -> None:
    report = check_carrada(tree, values_of=20)
    assert not report.failed, report.table()
    assert [s.listed for s in report.sequences] == [6, 6, 6, 6, 6, 5]
    assert sorted(s.split for s in report.sequences) == ["Test", "Test", "Train", "Train", "Validation", "Validation"]
    assert sum(s.labelled for s in report.sequences) > 0


@pytest.mark.parametrize("rad_root", ["Carrada_RAD", "Carrada_packed"])
def test_the_dataset_gives_what_was_simulated(tree: Path, rad_root: str) -> None:
    splits = [CARRADA(tree, s, rad_root=tree / rad_root, moments=5, load=("cubes", "views")) for s in SPLITS]
    assert sum(len(d) for d in splits) == 11  # of six frames two have four predecessors, of five one
    seen = 0
    for dataset in splits:
        assert dataset.grid == FMCWRadar.preset("carrada_small").grid
        assert dataset.label_axis == "sin"
        for i in range(len(dataset)):
            read = dataset.read(i)
            number, frame = int(read.frame_id[10:15]), int(read.frame_id[-6:])
            seed = int(np.random.SeedSequence([3, number]).generate_state(1, np.uint64)[0])
            sequence = RadarSequence(seed, 5 if number == 5 else 6, "carrada_small")
            window = [sequence[k] for k in range(frame - 4, frame + 1)]
            made = window[-1]
            np.testing.assert_array_equal(read.cubes[-2], window[-2].cube.magnitude())  # type: ignore[index]
            views = RadarViews.processed(np.stack([f.cube.magnitude() for f in window]))
            np.testing.assert_allclose(read.views.angle_doppler, views.angle_doppler, rtol=1e-6)  # type: ignore[union-attr]
            assert isinstance(read.masks, RadarMasks)
            np.testing.assert_array_equal(read.masks.range_doppler, made.masks.range_doppler)
            np.testing.assert_array_equal(read.masks.range_angle, made.masks.range_angle)
            np.testing.assert_allclose(read.objects.cells, made.objects.cells, atol=0.75)  # type: ignore[union-attr]
            assert read.objects.class_ids.tolist() == made.objects.class_ids.tolist()  # type: ignore[union-attr]
            seen += len(made.objects)
    assert seen > 0


def test_labels_displaced_as_carradas_are(tmp_path: Path) -> None:
    options = dict(frames=60, sequence_frames=12, radar="carrada_small", seed=5, splits={"Test": 1.0})
    ours, theirs = (
        CARRADA(SimulateCARRADA(tmp_path / axis, ra_label_axis=axis, **options)(), "Test")  # type: ignore[arg-type]
        for axis in ("sin", "angle")
    )
    assert (ours.label_axis, theirs.label_axis) == ("sin", "angle")
    shifts = []
    for i in range(len(ours)):
        one, other = ours.read(i), theirs.read(i)
        np.testing.assert_array_equal(one.cubes, other.cubes)
        if len(one.objects):  # type: ignore[arg-type]
            columns = np.stack([one.objects.cells[:, 1], other.objects.cells[:, 1]])  # type: ignore[union-attr]
            angle = ours.grid.azimuth_deg(columns[0])
            shifts.append(columns[1] - (32 + np.deg2rad(angle) / (np.pi / 64)))
    assert shifts
    assert np.abs(np.concatenate(shifts)).max() < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(sequence_frames=4), "sequence_frames=4 must be at least 5"),
        (dict(splits={"train": 1.0}), "may only name Train"),
        (dict(ra_label_axis="sine"), "ra_label_axis='sine' must be"),
        (dict(packed="zip"), "packed='zip' must be"),
        (dict(radar="other"), "no radar preset 'other'"),
        (dict(frames=0), "frames=0"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        SimulateCARRADA(tmp_path / "x", **options)


def test_the_tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "t"), "--frames", "5", "--radar", "carrada_small", "--packed", "log_float16"]
    assert simulate_radar.main(arguments) == 0
    assert "5 frames," in capsys.readouterr().out
    assert (tmp_path / "t/Carrada_packed/simulated-00000.h5").is_file()
    assert simulate_radar.main(arguments) == 0
    assert "is complete already" in capsys.readouterr().out
    assert simulate_radar.main([*arguments, "--seed", "1"]) == 1
    assert "seed: there 0, wanted 1" in capsys.readouterr().err
