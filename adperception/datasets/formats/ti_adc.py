"""Raw ADC recordings of Texas Instruments radars (``adc_data.bin`` of the DCA1000 capture card).

16-bit little-endian integers without a header. A recording is frames, of loops, of chirps (one per transmitter, in
turn). Within a chirp there are two orders, by the number of LVDS lanes of the chip (TI application report SWRA581):

* 2 lanes (xWR16xx, xWR18xx, xWR68xx): receiver after receiver, the samples of each in pairs: two real parts, then
  their two imaginary parts (I0 I1 Q0 Q1, I2 I3 Q2 Q3, ...);
* 4 lanes (xWR12xx, xWR14xx): sample after sample: the real parts of all receivers, then their imaginary parts.

Real-valued recordings and files of mmWave Studio that were split (``adc_data_Raw_0.bin``, with packet headers) are not
read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_ti_bin"]


def read_ti_bin(
    path: Path | str,
    samples: int,
    receivers: int,
    transmitters: int,
    loops: int,
    *,
    lanes: int = 2,
    iq_swap: bool = False,
    first: int = 0,
    frames: int | None = None,
) -> NDArray[np.complex64]:
    """Complex samples of a recording, in the order of the signal chain.

    Args:
        path: the ``.bin`` file.
        samples: ADC samples per chirp.
        receivers: number of receiving antennas.
        transmitters: number of transmitting antennas; they send in turn, one chirp each per loop.
        loops: chirp loops per frame.
        lanes: LVDS lanes of the chip, 2 or 4, see above.
        iq_swap: the imaginary part stands where the real part is expected (``adcbufCfg`` with its sample swap). If the
            near echoes appear at the far end of the range axis, try the other value.
        first: first frame to read.
        frames: number of frames to read; ``None`` reads all, and then the file must hold a whole number of them.

    Returns:
        ``(frames, loops, transmitters * receivers, samples)`` complex64; virtual antenna = transmitter * receivers +
        receiver.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for settings that make no sense, or a size that does not fit them.
    """
    path = Path(path)
    settings = {"samples": samples, "receivers": receivers, "transmitters": transmitters, "loops": loops}
    if min(settings.values()) < 1 or first < 0 or (frames is not None and frames < 1):
        raise ValueError(
            f"{path}: {', '.join(f'{k}={v}' for k, v in settings.items())}, frames={frames} must be at least 1 and "
            f"first={first} at least 0."
        )
    if lanes not in (2, 4):
        raise ValueError(f"{path}: lanes={lanes} must be 2 (xWR16xx, xWR18xx, xWR68xx) or 4 (xWR12xx, xWR14xx).")
    if lanes == 2 and samples % 2:
        raise ValueError(f"{path}: samples={samples} must be even: two lanes carry samples in pairs.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no ADC recording here.")
    frame_bytes = 4 * samples * receivers * transmitters * loops
    size = path.stat().st_size
    present, rest = divmod(size, frame_bytes)
    wanted = present - first if frames is None else frames
    if frames is None and rest:
        raise ValueError(
            f"{path}: {size:,} bytes are {size / frame_bytes:.3f} frames of {frame_bytes:,} bytes ("
            f"{', '.join(f'{k}={v}' for k, v in settings.items())}). Either these settings are not those of the "
            f"recording, or it was cut off: then read its {present} whole frames with frames={present}."
        )
    if wanted < 1 or first + wanted > present:
        raise ValueError(
            f"{path}: frames {first} to {first + max(wanted, 1) - 1} were asked for, but it holds {present} of "
            f"{frame_bytes:,} bytes."
        )
    words = np.fromfile(path, dtype="<i2", count=wanted * frame_bytes // 2, offset=first * frame_bytes)
    chirps = (wanted, loops, transmitters)
    if lanes == 2:
        pairs = words.reshape(*chirps, receivers, samples // 2, 2, 2)  # pair, part, which of the two
        parts = np.moveaxis(pairs, -2, 0).reshape(2, *chirps, receivers, samples)
    else:
        parts = np.moveaxis(words.reshape(*chirps, samples, 2, receivers), (-2, -1), (0, -2))
    real, imaginary = (1, 0) if iq_swap else (0, 1)
    values = np.empty(parts.shape[1:], dtype=np.complex64)
    values.real, values.imag = parts[real], parts[imaginary]
    return values.reshape(wanted, loops, transmitters * receivers, samples)
