"""A config section that remembers where each of its keys was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["LocatedDict", "location_of"]


class LocatedDict(dict[str, Any]):
    """A plain ``dict`` with, per key, the place it came from (``"configs/quickstart.py:31"`` or ``"--cfg-options"``).

    Equality, JSON and keyword expansion are those of ``dict``; the places only serve error messages.
    """

    def __init__(self, values: Mapping[str, Any], locations: Mapping[str, str]) -> None:
        super().__init__(values)
        self.locations = dict(locations)


def location_of(section: Mapping[str, Any], key: str) -> str:
    """``"file:line  "`` of ``key`` as a prefix for a message, or ``""`` where it is not known."""
    place = section.locations.get(key) if isinstance(section, LocatedDict) else None
    return f"{place}  " if place else ""
