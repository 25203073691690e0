"""Registries: config strings to classes. The only module that knows mmengine's Registry.

A type string is the class name (``type="ADLJEPA"``). Registries are our own roots, not children of mmengine's, so a
name registered by another library cannot collide.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import Registry

__all__ = ["DATASETS", "EVALUATIONS", "MODELS", "TRANSFORMS", "build"]

MODELS = Registry("adperception model", locations=["adperception.models"], scope="adperception")
DATASETS = Registry("adperception dataset", locations=["adperception.datasets"], scope="adperception")
TRANSFORMS = Registry("adperception transform", locations=["adperception.datasets.transforms"], scope="adperception")
EVALUATIONS = Registry("adperception evaluation", locations=["adperception.evaluation"], scope="adperception")


def build(registry: Registry, config: Mapping[str, Any], **extra: Any) -> Any:
    """Build ``config["type"]`` with the other keys as keyword arguments.

    Args:
        registry: one of this module's registries.
        config: plain mapping with ``type`` and keyword arguments.
        extra: further keyword arguments that do not come from the config.

    Raises:
        ValueError: for a missing or unknown ``type`` or an unknown option, with the nearest valid name.
    """
    options = dict(config)
    name = options.pop("type", None)
    registry.import_from_location()
    target = registry.module_dict.get(name)
    if target is None:
        known = sorted(registry.module_dict)
        raise ValueError(f'type="{name}" is not a registered {registry.name}.{_suggest(str(name), known)}')
    valid = [p for p in inspect.signature(target).parameters if p not in extra]
    for key in options:
        if key not in valid:
            raise ValueError(f'"{key}" is not an option of {name}.{_suggest(key, valid)}')
    return target(**options, **extra)


def _suggest(word: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1)
    hint = f' Did you mean "{nearest[0]}"?' if nearest else ""
    return f"{hint} Available: {', '.join(known)}."
