"""data_tools/carrada.py on a tree made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import carrada_check
from adperception.datasets.carrada_check import KNOWN_LABELLED_FRAMES
from adperception.datasets.formats.carrada import cube_file, mask_file, view_file
from adperception.datasets.formats.carrada_pack import pack_file
from data_tools import carrada

from radar_trees import GRID, SPLITS, make_tree

FIRST, SECOND, THIRD = SPLITS


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path, frames=6)


def cube_of(root: Path, frame: str) -> Path:
    return cube_file(root.parent / "Carrada_RAD", FIRST, frame)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_whole_tree_passes(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert carrada.main(["check", str(tree)]) == 0
    out = capsys.readouterr().out
    assert f"{FIRST:<22}{'Train':<12}{6:>7}{6:>7}{6:>7}{6:>7}{4:>9}  4 pedestrian, 4 car" in out
    assert "Train: 2 sequences, 12 frames, 8 with objects" in out
    assert "ERROR" not in out
    assert "note" not in out


def _cut(root: Path) -> None:
    path = cube_of(root, "000002")
    path.write_bytes(path.read_bytes()[:-4])


def _transpose(root: Path) -> None:
    np.save(cube_of(root, "000002"), np.ones((24, 32, 16), dtype=np.float32))


def _whole_numbers(root: Path) -> None:
    np.save(cube_of(root, "000002"), np.ones(GRID.shape, dtype=np.int32))


def _nan(root: Path) -> None:
    cube = np.load(cube_of(root, "000000"))
    cube[2, 2, 2] = np.nan
    np.save(cube_of(root, "000000"), cube)


def _objects(root: Path) -> None:
    np.save(cube_of(root, "000002"), np.array([None]), allow_pickle=True)


def _one_more_cube(root: Path) -> None:
    cube_of(root, "000006").write_bytes(cube_of(root, "000005").read_bytes())


def _missing_view(root: Path) -> None:
    view_file(root, FIRST, "range_angle", "processed", "000004").unlink()


def _missing_mask(root: Path) -> None:
    mask_file(root, FIRST, "dense", "000004", "range_doppler").unlink()


def _flipped_view(root: Path) -> None:
    path = view_file(root, FIRST, "range_doppler", "processed", "000000")
    np.save(path, np.load(path)[::-1])


def _exchanged_masks(root: Path) -> None:
    paths = [mask_file(root, FIRST, "dense", f"00000{i}", "range_angle") for i in (0, 5)]
    paths[1].write_bytes(paths[0].read_bytes())


def _times(root: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = root / FIRST / f"adc_ts_{FIRST}.txt"
    path.write_text("\n".join(change(path.read_text().split())))


def _annotated_nowhere(root: Path) -> None:
    edit(root / "annotations_frame_oriented.json", lambda c: c[FIRST].update({"000077": c[FIRST]["000003"]}))


def _outside(root: Path) -> None:
    edit(
        root / "annotations_frame_oriented.json",
        lambda c: c[FIRST]["000003"]["000017"]["range_doppler"]["dense"].append([40, 3]),
    )


def _rows(root: Path) -> None:
    edit(
        root / "annotations_frame_oriented.json",
        lambda c: c[FIRST]["000003"]["000017"]["range_angle"].update(box=[[3, 4], [4, 5]]),
    )


def _unlisted(root: Path) -> None:
    edit(root / "light_dataset_frame_oriented.json", lambda c: c.update(other=["000000"]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "000002.npy: holds 49,148 bytes of values, (32, 24, 16) of float32 needs 49,152"),
        (_transpose, "000002.npy: shape (24, 32, 16), expected (32, 24, 16)"),
        (_whole_numbers, "000002.npy: holds int32"),
        (_nan, "000000.npy: 1 of 12,288 values are NaN"),
        (_objects, "000002.npy: holds pickled objects"),
        (_one_more_cube, "do not have the same frames (7 cubes, 6 range_doppler_processed"),
        (_missing_view, "1 of 6 frames have no range_angle_processed (000004)"),
        (_missing_mask, "1 of 6 frames have no dense (000004)"),
        (_flipped_view, "in the median (0 if its rows are flipped)"),
        (_exchanged_masks, "frame 000005: dense range_angle mask and annotations differ in"),
        (lambda root: _times(root, lambda t: t[:-1]), "5 time stamps for 6 frames"),
        (lambda root: _times(root, lambda t: [*t[:2], t[1], *t[3:]]), "time stamps do not grow from frame 1"),
        (_annotated_nowhere, "objects are labelled in 1 frames that do not exist (000077)"),
        (_outside, "instance 000017 has 1 of"),
        (_rows, "the rows of its two boxes sum to [13, 13], must be 32"),
        (_unlisted, "sequence other is in light_dataset_frame_oriented.json but not in data_seq_ref.json"),
    ],
)
def test_every_mismatch_is_listed(
    tree: Path, damage: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(tree)
    assert carrada.main(["check", str(tree)]) == 1
    out = capsys.readouterr().out
    assert any(line.startswith("ERROR: ") and message in line for line in out.splitlines()), out
    assert f"\n{SECOND}" in out  # the other sequences were looked at all the same


def test_what_is_odd_but_harmless_is_a_note(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _times(tree, lambda t: [*t[:3], *(str(int(x) + 10**9) for x in t[3:])])
    for path in (tree / FIRST / "range_angle_raw").iterdir():
        path.unlink()
    (tree / SECOND / f"adc_ts_{SECOND}.txt").unlink()
    assert carrada.main(["check", str(tree)]) == 0
    out = capsys.readouterr().out
    assert f"note: {FIRST}: 1 steps between time stamps are not 0.1 s (first: 1.100 s after frame 2)" in out
    assert f"note: {FIRST}: 6 of 6 frames have no range_angle_raw" in out
    assert f"note: {SECOND}: no time stamps" in out


def test_known_numbers_of_labelled_frames(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    totals = {split: sum(frames.values()) for split, frames in KNOWN_LABELLED_FRAMES.items()}
    assert totals == {"Train": 4319, "Validation": 1483, "Test": 1391}
    known = {"Train": {FIRST: 3, "absent": 1}, "Validation": {SECOND: 4}, "Test": {}}
    monkeypatch.setattr(carrada_check, "KNOWN_LABELLED_FRAMES", known)
    assert carrada.main(["check", str(tree)]) == 1
    out = capsys.readouterr().out
    assert f"ERROR: {FIRST}: 4 frames with objects; the released annotations have 3." in out
    assert f"sequence {SECOND} is in Train; CARRADA has it in Validation." in out
    assert "note: 1 of CARRADA's 3 sequences are not here (first: absent)." in out


def test_pack_then_check_then_damage(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert carrada.main(["pack", str(tree), "--coding", "log_float16", "--sequences", FIRST]) == 0
    assert "6 frames" in (out := capsys.readouterr().out)
    assert "largest error 0.0156 dB" in out
    assert carrada.main(["pack", str(tree), "--coding", "log_float16"]) == 0
    assert "2 sequences packed, 1 were there" in capsys.readouterr().out
    assert carrada.main(["pack", str(tree)]) == 1
    assert "its coding is not lossless" in capsys.readouterr().err
    folder = tree.parent / "Carrada_packed"
    assert carrada.main(["check", str(tree)]) == 0
    assert carrada.main(["check", str(tree), "--rad-root", str(folder)]) == 0
    path = pack_file(folder, SECOND)
    path.write_bytes(path.read_bytes()[:-1000])
    capsys.readouterr()
    for rad_root in ([], ["--rad-root", str(folder)]):
        assert carrada.main(["check", str(tree), *rad_root]) == 1
        assert f"ERROR: {path}: not a whole HDF5 file" in capsys.readouterr().out


def test_without_cubes_the_views_are_packed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree.parent / "Carrada_RAD").rename(tree.parent / "elsewhere")
    assert carrada.main(["check", str(tree)]) == 0
    assert "cubes were not checked" in capsys.readouterr().out
    assert carrada.main(["pack", str(tree)]) == 0
    assert "only views and masks are packed" in capsys.readouterr().out
    assert carrada.main(["pack", str(tree), "--sequences", "x"]) == 1
    assert carrada.main(["check", str(tree), "--sequences", "x"]) == 1
