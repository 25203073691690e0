"""ERASE-Net's sizes: channels per level of its networks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ERASE_NET_SIZES", "ERASENetSize"]


@dataclass(frozen=True)
class ERASENetSize:
    """Channels per level, finest first.

    Attributes:
        detector: of the centre detector's four levels.
        segmenter: of each patch network's three levels.
    """

    detector: tuple[int, int, int, int]
    segmenter: tuple[int, int, int]


ERASE_NET_SIZES: dict[str, ERASENetSize] = {
    "small": ERASENetSize((16, 32, 64, 96), (16, 32, 48)),
    "medium": ERASENetSize((24, 48, 96, 144), (24, 48, 64)),
    "large": ERASENetSize((32, 56, 112, 160), (32, 64, 96)),
}
"""docs/erase_net.md has their parameters and multiply-adds."""
