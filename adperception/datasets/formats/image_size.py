"""Image sizes from file headers or from ``image_shapes.csv``, without decoding an image."""

from __future__ import annotations

import csv
import struct
from pathlib import Path

__all__ = ["read_image_shapes", "read_image_size", "write_image_shapes"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Start-of-frame markers of JPEG; the gaps (C4, C8, CC) are other segments.
_JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}


def read_image_size(path: str | Path) -> tuple[int, int]:
    """``(height, width)`` in pixels from the header of a PNG or JPEG file.

    Raises:
        ValueError: if the file is neither, or its header is cut off.
    """
    with Path(path).open("rb") as file:
        head = file.read(24)
        if head.startswith(_PNG) and len(head) == 24:
            width, height = struct.unpack(">II", head[16:24])
            return height, width
        if head.startswith(_JPEG):
            file.seek(2)
            while len(segment := file.read(4)) == 4 and segment[0] == 0xFF:
                marker, length = segment[1], int.from_bytes(segment[2:], "big")
                if marker in _JPEG_FRAMES:
                    frame = file.read(5)
                    if len(frame) == 5:
                        height, width = struct.unpack(">HH", frame[1:])
                        return height, width
                    break
                file.seek(length - 2, 1)
    raise ValueError(f"{path}: no PNG or JPEG header with an image size; the file is something else or was cut off.")


def read_image_shapes(path: str | Path) -> dict[str, tuple[int, int]]:
    """Frame name to ``(height, width)`` in pixels, from a table with the columns ``frame,height,width``.

    Raises:
        ValueError: for a missing column or a value that is no whole number, naming file and line.
    """
    path = Path(path)
    shapes: dict[str, tuple[int, int]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for row in reader:
            height, width = row.get("height") or "", row.get("width") or ""
            if not (row.get("frame") and height.isdigit() and width.isdigit()):
                raise ValueError(
                    f'{path}:{reader.line_num}: expected the columns "frame,height,width" with whole numbers, '
                    f"found {row}."
                )
            shapes[row["frame"]] = (int(height), int(width))
    return shapes


def write_image_shapes(path: str | Path, shapes: dict[str, tuple[int, int]]) -> None:
    """Write the table that ``read_image_shapes`` reads, sorted by frame name."""
    rows = "".join(f"{frame},{height},{width}\n" for frame, (height, width) in sorted(shapes.items()))
    Path(path).write_text("frame,height,width\n" + rows, encoding="utf-8", newline="\n")
