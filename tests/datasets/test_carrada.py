"""CARRADA on a tree made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import CARRADA
from adperception.datasets.formats.carrada import cube_file, mask_file, view_file
from adperception.datasets.formats.carrada_files import CarradaFiles
from adperception.datasets.formats.carrada_pack import CarradaPacks, pack_file, pack_sequence
from adperception.structures import RadarBatch, RadarViews

from radar_trees import GRID, SPLITS, instances_of, make_frame, make_tree, masks_of

FIRST, SECOND, THIRD = SPLITS
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("carrada"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path, frames=6)


@pytest.mark.parametrize("moments", [1, 3, 5])
def test_frames_with_four_predecessors_whatever_t(shared: Path, moments: int) -> None:
    train, test = (CARRADA(shared, split, moments=moments) for split in ("Train", "Test"))
    assert list(train.frame_ids) == [f"{s}/{i:06d}" for s in (FIRST, SECOND) for i in range(4, 8)]
    assert list(test.frame_ids) == [f"{THIRD}/{i:06d}" for i in range(4, 8)]
    frame = train.read(6)
    assert frame.cubes is not None
    assert frame.cubes.shape == (moments, *GRID.shape)
    assert frame.views is None
    for i in range(moments):  # oldest first
        np.testing.assert_array_equal(frame.cubes[-1 - i], make_frame(1, 6 - i).magnitude)


def test_a_frame_holds_views_masks_and_objects(shared: Path) -> None:
    dataset = CARRADA(shared.parent, moments=2, load=("views",), annotation="sparse")
    assert (dataset.grid, dataset.label_axis, dataset.class_names) == (GRID, "sin", ("pedestrian", "cyclist", "car"))
    frame = dataset.get(3, RNG)
    assert frame.cubes is None
    views = RadarViews.processed(np.stack([make_frame(0, i).magnitude for i in (6, 7)]))
    np.testing.assert_allclose(frame.views.range_doppler, views.range_doppler, rtol=1e-6)  # type: ignore[union-attr]
    np.testing.assert_allclose(frame.views.angle_doppler, views.angle_doppler, rtol=1e-6)  # type: ignore[union-attr]
    masks = masks_of(instances_of(7), "sparse")
    np.testing.assert_array_equal(frame.masks.range_angle, masks.range_angle)  # type: ignore[union-attr]
    # The pedestrian's range-Doppler rows 13 and 14 are cube rows 19 and 18 (32 - row).
    np.testing.assert_allclose(frame.objects.cells, [[18.5, 8.5, 4.5], [10.5, 17.5, 11]])  # type: ignore[union-attr]
    assert frame.objects.class_ids.tolist() == [1, 3]  # type: ignore[union-attr]
    batch = RadarBatch.from_frames([frame, dataset.get(0, RNG)])
    assert batch.range_doppler is not None
    assert batch.range_doppler.shape == (2, 2, 32, 16)


def test_objects_from_masks_and_boxes_are_the_same(tree: Path) -> None:
    annotated = CARRADA(tree)
    (tree / "annotations_frame_oriented.json").unlink()
    guessed = CARRADA(tree)
    for i in range(len(annotated)):
        ours, theirs = guessed.read(i).objects, annotated.read(i).objects
        np.testing.assert_allclose(ours.cells, theirs.cells)  # type: ignore[union-attr]
        np.testing.assert_allclose(ours.sizes, theirs.sizes)  # type: ignore[union-attr]


def test_packed_sequences_are_found_and_read_alike(tree: Path) -> None:
    loose = CARRADA(tree, moments=5, load=("cubes", "views"))
    assert isinstance(loose.storage, CarradaFiles)
    for sequence in (FIRST, SECOND):
        pack_sequence(loose.storage, tree.parent / "Carrada_packed", sequence, [f"{i:06d}" for i in range(6)])
    packed = CARRADA(tree, moments=5, load=("cubes", "views"))
    assert isinstance(packed.storage, CarradaPacks)
    for i in range(len(loose)):
        ours, theirs = packed.read(i), loose.read(i)
        np.testing.assert_array_equal(ours.cubes, theirs.cubes)
        np.testing.assert_array_equal(ours.views.range_angle, theirs.views.range_angle)  # type: ignore[union-attr]
        np.testing.assert_array_equal(ours.masks.range_doppler, theirs.masks.range_doppler)  # type: ignore[union-attr]
    # rad_root says which; a sequence that is not packed is missed, not replaced.
    assert isinstance(CARRADA(tree, rad_root=tree.parent / "Carrada_RAD").storage, CarradaFiles)
    pack_file(tree.parent / "Carrada_packed", SECOND).unlink()
    with pytest.raises(FileNotFoundError, match=f"{SECOND}.h5 does not exist"):
        CARRADA(tree)


def test_frames_of_a_class_are_listed_more_often_within_the_subset(shared: Path) -> None:
    assert len(CARRADA(shared, oversample={"car": 3, "pedestrian": 2})) == 24
    dataset = CARRADA(shared, fraction=0.5, oversample={"car": 2})
    assert list(dataset.frame_ids) == [f"{FIRST}/{i:06d}" for i in (4, 4, 5, 5, 6, 6, 7, 7)]
    assert dataset.split_size == 8
    np.testing.assert_array_equal(dataset.read(0).objects.cells, dataset.read(1).objects.cells)  # type: ignore[union-attr]
    assert len(CARRADA(shared, oversample={"cyclist": 5})) == 8
    assert list(CARRADA(shared, interval=3).frame_ids) == [f"{FIRST}/000004", f"{FIRST}/000007", f"{SECOND}/000006"]


def test_what_is_missing_is_named_before_the_first_frame(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds data_seq_ref\.json\. Give root="):
        CARRADA(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"rad_root=.*is not a folder"):
        CARRADA(tree, rad_root=tmp_path / "nowhere")
    cube_file(tmp_path / "Carrada_RAD", SECOND, "000001").unlink()
    CARRADA(tree, moments=3)  # does not need frame 1
    with pytest.raises(FileNotFoundError, match=rf"1 of 6 frames of {SECOND} have no cubes \(first: 000001\)"):
        CARRADA(tree, moments=5)
    view_file(tree, SECOND, "angle_doppler", "processed", "000003").unlink()
    CARRADA(tree)
    with pytest.raises(FileNotFoundError, match=rf"of {SECOND} have no views \(first: 000003\)"):
        CARRADA(tree, moments=2, load=("views",))
    (tree / SECOND / "annotations/dense").rename(tree / SECOND / "annotations/elsewhere")
    with pytest.raises(FileNotFoundError, match="annotations/dense does not exist"):
        CARRADA(tree)
    (tmp_path / "Carrada_RAD").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"no folder of RAD tensors is known\. Set rad_root="):
        CARRADA(tree, annotation="sparse")


def test_damaged_files_are_named_when_they_are_read(tree: Path, tmp_path: Path) -> None:
    path = cube_file(tmp_path / "Carrada_RAD", FIRST, "000004")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    dataset = CARRADA(tree, moments=2, load=("cubes", "views"))
    for i in (0, 1):
        with pytest.raises(ValueError, match=r"000004\.npy: not a whole \.npy array"):
            dataset.read(i)
    path.write_bytes(whole)
    cube = np.load(path)
    cube[1, 1, 1] = np.nan
    np.save(path, cube)
    with pytest.raises(ValueError, match=r"000004\.npy: 1 of 12,288 values are NaN"):
        dataset.read(0)
    path.write_bytes(whole)
    mask_file(tree, FIRST, "dense", "000004", "range_angle").unlink()
    with pytest.raises(FileNotFoundError, match=r"dense/000004/range_angle\.npy does not exist"):
        dataset.read(0)


def test_annotations_of_frames_that_do_not_exist_are_refused(tree: Path) -> None:
    path = tree / "annotations_frame_oriented.json"
    content = json.loads(path.read_text())
    content[FIRST]["000123"] = content[FIRST]["000005"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"1 frames of {FIRST} that do not exist \(first: 000123\)"):
        CARRADA(tree)
    assert len(CARRADA(tree, split="Test")) == 2  # other sequences are not affected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(split="train"), "split='train' must be one of Train, Validation, Test"),
        (dict(split=["x"]), "sequence x is not in"),
        (dict(split="Validation"), "has no sequence of split Validation"),
        (dict(moments=6), "moments=6 must be 1 to first_frame"),
        (dict(annotation="boxes"), "annotation='boxes' must be"),
        (dict(load=("cube",)), "must name"),
        (dict(oversample={"bus": 2}), "oversample="),
        (dict(oversample={"car": 0}), "whole numbers of at least 1"),
        (dict(first_frame=8), "has no frame with 8 predecessors"),
        (dict(fraction=0), "fraction=0 must be"),
    ],
)
def test_options_that_make_no_sense(shared: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CARRADA(shared, **options)


def test_index_files_of_different_releases(tree: Path) -> None:
    index = tree / "light_dataset_frame_oriented.json"
    content = json.loads(index.read_text())
    del content[FIRST]
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"sequence {FIRST} is in data_seq_ref.json but not in light"):
        CARRADA(tree)
