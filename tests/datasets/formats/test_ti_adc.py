from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adperception.datasets.formats.ti_adc import read_ti_bin

SHAPE: dict[str, Any] = {"samples": 4, "receivers": 3, "transmitters": 2, "loops": 5}
FRAMES = 2


def recorded() -> np.ndarray:
    """``(frame, loop, transmitter, receiver, sample)``, every value different and below 2^15."""
    numbers = np.arange(FRAMES * 5 * 2 * 3 * 4).reshape(FRAMES, 5, 2, 3, 4)
    return numbers + 1j * -(numbers + 1000)


def write(path: Path, lanes: int, swap: bool = False) -> Path:
    """Word by word, as the card does it."""
    words = []
    for chirp in recorded().reshape(-1, 3, 4):
        if lanes == 2:
            for receiver in chirp:
                for a, b in (receiver[:2], receiver[2:]):
                    parts = [[a.real, b.real], [a.imag, b.imag]]
                    words += [w for part in (parts[::-1] if swap else parts) for w in part]
        else:
            for sample in chirp.T:
                parts = [list(sample.real), list(sample.imag)]
                words += [w for part in (parts[::-1] if swap else parts) for w in part]
    np.array(words, dtype="<i2").tofile(path)
    return path


@pytest.mark.parametrize("lanes", [2, 4])
@pytest.mark.parametrize("swap", [False, True])
def test_both_orders(tmp_path: Path, lanes: int, swap: bool) -> None:
    path = write(tmp_path / "adc_data.bin", lanes, swap)
    values = read_ti_bin(path, **SHAPE, lanes=lanes, iq_swap=swap)
    assert values.dtype == np.complex64
    np.testing.assert_array_equal(values, recorded().reshape(FRAMES, 5, 6, 4))
    np.testing.assert_array_equal(read_ti_bin(path, **SHAPE, lanes=lanes, iq_swap=swap, first=1, frames=1), values[1:])


def test_a_recording_that_was_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "adc_data.bin", 2)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(ValueError, match=r"1\.988 frames of 480 bytes.*frames=1\."):
        read_ti_bin(path, **SHAPE)
    assert len(read_ti_bin(path, **SHAPE, frames=1)) == 1
    with pytest.raises(ValueError, match="frames 1 to 1 were asked for, but it holds 1"):
        read_ti_bin(path, **SHAPE, first=1, frames=1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lanes": 3}, "lanes=3 must be 2"),
        ({"samples": 3}, "samples=3 must be even"),
        ({"loops": 0}, "loops=0"),
        ({"first": -1}, "first=-1"),
    ],
)
def test_senseless_settings(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "adc_data.bin", 2)
    with pytest.raises(ValueError, match=message):
        read_ti_bin(path, **{**SHAPE, **changed})
    with pytest.raises(FileNotFoundError, match="no ADC recording"):
        read_ti_bin(tmp_path / "other.bin", **SHAPE)
