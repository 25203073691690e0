from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats.label_table import read_label_table, write_label_table
from adperception.structures import Boxes3D

HEADER = "frame,name,x,y,z,length,width,height,yaw"
BOX = "1,2,-1,4,1.8,1.5,0.3"


def write_csv(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_rows_of_a_frame_need_not_be_neighbours(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", f"b,Car,{BOX}", f"a,Pedestrian,{BOX}", f"b,Car,9{BOX}", "c,,,,,,,,")
    table = read_label_table(path)
    assert table.frames == ("b", "a", "c")
    assert table.lines.tolist() == [2, 3, 5]
    assert [len(table.boxes_of(i)) for i in range(3)] == [2, 1, 0]
    assert table.boxes_of(0).names == ("Car", "Car")
    np.testing.assert_array_equal(table.boxes_of(0).boxes[:, 0], [1, 91])
    np.testing.assert_array_equal(table.boxes_of(1).boxes, np.float32([[1, 2, -1, 4, 1.8, 1.5, 0.3]]))
    assert table.classes == ("Car", "Pedestrian")


def test_optional_columns_and_others(tmp_path: Path) -> None:
    header = "track,num_points,difficulty," + HEADER
    table = read_label_table(write_csv(tmp_path / "a.csv", f"t,12,-1,a,Car,{BOX}", f"t,,,a,Car,{BOX}", header=header))
    assert table.num_points.tolist() == [12, -1]
    assert table.difficulties.tolist() == [-1, 0]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_round_trip_is_exact(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    frames = {
        "drive 1/ä,b.bin": Boxes3D(rng.uniform(0.1, 3, (20, 7)).astype(np.float32), ("Car", 'Van "x"') * 10),
        "empty.bin": Boxes3D.empty(),
    }
    path = tmp_path / f"labels{suffix}"
    write_label_table(path, frames, {"drive 1/ä,b.bin": np.arange(20)})
    table = read_label_table(path)
    assert table.frames == tuple(frames)
    np.testing.assert_array_equal(table.boxes_of(0).boxes, frames["drive 1/ä,b.bin"].boxes)
    assert table.boxes_of(0).names == frames["drive 1/ä,b.bin"].names
    assert len(table.boxes_of(1)) == 0
    assert table.num_points.tolist() == list(range(20))
    write_label_table(path, frames)
    assert set(read_label_table(path).num_points.tolist()) == {-1}


def test_a_table_without_boxes(tmp_path: Path) -> None:
    table = read_label_table(write_csv(tmp_path / "a.csv"))
    assert table.frames == ()
    assert table.boxes.shape == (0, 7)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,Car,1,2,-1,4,1.8,1.5", r"a\.csv:3: 8 values, but the header names 9 columns\. Was the file cut off"),
        ("a,Car,1,2,-1,4,1.8,1.5,0.3,7", r"a\.csv:3: 10 values, but the header names 9 columns"),
        ("a,Car,1,2,-1,4,wide,1.5,0.3", r"a\.csv:3: width is 'wide', not a number\. Every box needs x, y, z"),
        ("a,Car,1,,-1,4,1.8,1.5,0.3", r"a\.csv:3: y is '', not a number"),
        ("a,Car,nan,2,-1,4,1.8,1.5,0.3", r"a\.csv:3: x=nan is not finite"),
        ("a,Car,1,2,-1,4,0,1.5,0.3", r"a\.csv:3: width=0 must be above 0 metres"),
        ("a,Car,1,2,-1,4,1.8,1.5,90", r"a\.csv:3: yaw=90 .* convert degrees with math\.radians"),
        ("a,Car,4e5,2,-1,4,1.8,1.5,0", r"a\.csv:3: x=400000 m is a position on a map"),
        ("a,,1,2,-1,4,1.8,1.5,0.3", r"a\.csv:3: name is ''\. Every box needs a class name"),
        (f",Car,{BOX}", r"a\.csv:3: frame is ''\. Give the name of the cloud file"),
        (f'"a,Car,{BOX}', r"a\.csv:\d: not readable as CSV \(unexpected end of data\)"),
    ],
)
def test_bad_csv_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_label_table(write_csv(tmp_path / "a.csv", f"a,Car,{BOX}", line))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "frame,class,x,y,z,l,w,h,yaw",
            r"a\.csv:1: the header has no column name, length, width, height; it reads: fr",
        ),
        (HEADER + ",x", r"a\.csv:1: the header has a column twice"),
        (HEADER.replace(",", ";"), r"a\.csv:1: .* separated by commas: frame,name,x,y,z"),
        ("", r"a\.csv:1: .*it reads: \(nothing\)"),
    ],
)
def test_bad_headers_are_shown(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_label_table(write_csv(tmp_path / "a.csv", f"a,Car,{BOX}", header=header))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"yaw": None}, r"a\.jsonl:2: yaw is None, not a number"),
        ({"x": True}, r"a\.jsonl:2: x is True, not a number"),
        ({"x": [1]}, r"a\.jsonl:2: x is \[1\], not a number"),
        ({"frame": 7}, r"a\.jsonl:2: frame is 7"),
        ({"num_points": 1.5}, r"a\.jsonl:2: num_points=1\.5 must be a whole number"),
    ],
)
def test_bad_json_lines_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    good = {"frame": "a", "name": "Car", "x": 1, "y": 2, "z": 0, "length": 4, "width": 2, "height": 1, "yaw": 0}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps({**good, **change}) + "\n")
    with pytest.raises(ValueError, match=message):
        read_label_table(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"frame": "a"}\n\n{"frame": "b", "na')
    with pytest.raises(ValueError, match=r"a\.jsonl:3: not a JSON object on a line of its own"):
        read_label_table(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match=r"a\.jsonl:1: a list where an object"):
        read_label_table(path)
    (tmp_path / "a.csv").write_bytes(HEADER.encode() + b"\n\xff\xfe,Car\n")
    with pytest.raises(ValueError, match=r"a\.csv:\d: not readable as CSV .*UTF-8"):
        read_label_table(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r'"\.xlsx" is not known; use \.csv or \.jsonl'):
        read_label_table(tmp_path / "a.xlsx")
    with pytest.raises(FileNotFoundError, match=r"b\.csv does not exist"):
        read_label_table(tmp_path / "b.csv")
