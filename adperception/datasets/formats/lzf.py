"""LZF decompression, the compression of ``binary_compressed`` PCD files.

The format (liblzf): a control byte below 32 is followed by that many literal bytes plus one. Otherwise its upper three
bits plus two are the length of a copy from earlier output (7: one more byte adds to the length); its lower five bits
and the byte that follows give the distance back, minus one. A copy may overlap its own output.
"""

from __future__ import annotations

__all__ = ["decompress_lzf"]


def decompress_lzf(data: bytes, size: int) -> bytes:
    """The ``size`` bytes that ``data`` was compressed from.

    Raises:
        ValueError: if the data end early or give another size.
    """
    output = bytearray()
    position, end = 0, len(data)
    try:
        while position < end:
            control = data[position]
            position += 1
            if control < 32:
                output += data[position : position + control + 1]
                position += control + 1
                continue
            length = (control >> 5) + 2
            if length == 9:
                length += data[position]
                position += 1
            distance = ((control & 31) << 8) + data[position] + 1
            position += 1
            start = len(output) - distance
            if start < 0:
                raise ValueError(f"LZF: a copy at byte {position} of {end} starts before the output.")
            if distance >= length:
                output += output[start : start + length]
            else:  # the copy repeats its own beginning
                pattern = bytes(output[start:])
                output += (pattern * (length // distance + 1))[:length]
    except IndexError as error:
        raise ValueError(f"LZF: the data end in the middle of a copy ({end} bytes).") from error
    if len(output) != size:
        raise ValueError(f"LZF: {end} bytes give {len(output)} bytes, the header says {size}.")
    return bytes(output)
