from __future__ import annotations

import collections
import contextlib
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adperception.datasets.formats.plain_pickle import read_plain_pickle

LABELS = {
    "classes": ["car", "person"],
    "boxes": np.array([[100.5, 128, 32, 10, 20, 6], [30, 40, 63, 4, 5, 9]]),
    "cart_boxes": np.arange(8, dtype=np.int64).reshape(2, 4),
    "nested": {"a": (1, -2.5, None, True), 3: [10**30, "ä", 300, 70000, []]},
    "number": np.float32(1.5),
}


class Harmful:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


def assert_equal(read: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        assert isinstance(read, np.ndarray)
        assert read.dtype == expected.dtype
        np.testing.assert_array_equal(read, expected)
    elif isinstance(expected, dict):
        assert list(read) == list(expected)
        for key in expected:
            assert_equal(read[key], expected[key])
    else:
        assert read == expected


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_values_and_arrays(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "0.pickle"
    path.write_bytes(pickle.dumps(LABELS, protocol=protocol))
    assert_equal(read_plain_pickle(path), LABELS)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 6)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        np.array([["person", "bus"]]),
        np.array([True, False]),
    ],
    ids=["empty", "fortran", "big-endian", "text", "bool"],
)
def test_kinds_of_arrays(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "0.pickle"
    for protocol in (3, 5):
        path.write_bytes(pickle.dumps([array, array], protocol=protocol))
        for read in read_plain_pickle(path):
            assert_equal(read, array)
            assert read.flags.writeable


def test_files_of_python_2_and_numpy_1(tmp_path: Path) -> None:
    """Protocols 0 and 2 with text for bytes, and the names that numpy used until version 2."""
    path = tmp_path / "0.pickle"
    path.write_bytes(pickle.dumps({"classes": ["car"], "n": [1, 2.5, True, 10**20]}, protocol=0))
    assert read_plain_pickle(path) == {"classes": ["car"], "n": [1, 2.5, True, 10**20]}
    dtype = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85" + dtype
    path.write_bytes(b"\x80\x02" + array + b"\x89U\x08" + np.array([1.5, -2], "<f4").tobytes() + b"tb.")
    assert_equal(read_plain_pickle(path), np.array([1.5, -2], dtype=np.float32))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Harmful(os.system, "touch executed"), r"(posix|nt)\.system"),
        (Harmful(subprocess.Popen, ["touch", "executed"]), r"subprocess\.Popen"),
        (Harmful(exec, "open('executed', 'w')"), r"builtins\.exec"),
        (Harmful(getattr, "load", "upper"), r"builtins\.getattr"),
        (Harmful(np.load, "executed"), r"numpy\.load"),
        (collections.OrderedDict(a=1), r"collections\.OrderedDict"),
        (Path("a"), r"pathlib"),
        ({1, 2}, "EMPTY_SET|builtins.set"),
        (complex(1, 2), r"builtins\.complex"),
        (np.ndarray, r"numpy\.ndarray"),
        (b"bytes", "bytes"),
        (np.array([{}, None]), "O8"),
        (np.zeros(2, dtype=[("a", "f4")]), "V4|named fields"),
        (np.zeros(2, dtype=np.complex64), "c8"),
        (Harmful(np.ndarray, (2,)), r"calls numpy\.ndarray"),
    ],
)
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_anything_else_is_refused_by_name_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("0.pickle")
    path.write_bytes(pickle.dumps({"boxes": value}, protocol=protocol))
    with pytest.raises(ValueError, match=rf"^0\.pickle: not read: .*({name})"):
        read_plain_pickle(path)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "0.pickle"]


def test_every_cut_and_every_flipped_byte_gives_an_error_or_a_value(tmp_path: Path) -> None:
    """Whatever the bytes are: a plain value comes back or a ValueError, nothing else."""
    path = tmp_path / "0.pickle"
    for protocol in (3, 5):
        content = pickle.dumps(LABELS, protocol=protocol)
        for end in range(len(content)):
            path.write_bytes(content[:end])
            with pytest.raises(ValueError, match=r"0\.pickle: (cut off|not read)"):
                read_plain_pickle(path)
        rng = np.random.default_rng(protocol)
        for position in range(0, len(content), 3):
            changed = bytearray(content)
            changed[position] = rng.integers(256)
            path.write_bytes(changed)
            with contextlib.suppress(ValueError):
                read_plain_pickle(path)


def test_a_missing_file_and_deep_nesting(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no pickle here"):
        read_plain_pickle(tmp_path / "0.pickle")
    path = tmp_path / "deep.pickle"
    path.write_bytes(b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(ValueError, match="RecursionError"):
        read_plain_pickle(path)
    laughs: list[Any] = []
    for _ in range(60):
        laughs = [laughs, laughs]  # 2^60 lists if each were copied
    path.write_bytes(pickle.dumps(laughs))
    assert len(read_plain_pickle(path)) == 2
