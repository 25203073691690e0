"""Registries: config strings to classes. The only module that knows mmengine's Registry.

A type string is the class name (``type="ADLJEPA"``). Registries are our own roots, not children of mmengine's, so a
name registered by another library cannot collide.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import Registry as MmengineRegistry

from adperception.config import nearest
from adperception.located_dict import location_of

__all__ = [
    "DATASETS",
    "EVALUATIONS",
    "GRAPH_SCHEDULES",
    "MODELS",
    "OPTIMIZERS",
    "PREPARATIONS",
    "SCHEDULES",
    "STRATEGIES",
    "TRANSFORMS",
    "Registry",
    "build",
    "check",
]


class Registry(MmengineRegistry):
    """Names of one kind of thing.

    Args:
        kind: what it holds, in words, for messages (``"model"``).
        package: every module below this package is imported before the first look-up, so that a new file is found
            without being listed anywhere.
    """

    def __init__(self, kind: str, package: str) -> None:
        super().__init__(f"adperception {kind}", scope="adperception")
        self.kind = kind
        self.package = package
        self._searched = False

    def find(self, config: Mapping[str, Any]) -> Any:
        """The class that ``config["type"]`` names.

        Raises:
            ValueError: for a missing or unknown ``type``, with the nearest valid name.
        """
        if not self._searched:
            self._searched = True
            root = importlib.import_module(self.package)
            for module in pkgutil.walk_packages(root.__path__, f"{self.package}."):
                importlib.import_module(module.name)
        name = config.get("type")
        target = self.module_dict.get(name)
        if target is None:
            known = sorted(self.module_dict)
            problem = f'type="{name}" is not a registered {self.kind}' if "type" in config else "type is missing"
            raise ValueError(f"{location_of(config, 'type')}{problem}.{nearest(str(name), known)}")
        return target

    def _register_module(self, module: Any, module_name: Any = None, force: bool = False) -> None:
        for name in [module_name] if isinstance(module_name, str) else module_name or [module.__name__]:
            present = self.module_dict.get(name)
            if present is not None and not force:
                raise ValueError(
                    f'The {self.kind} "{name}" is registered twice: {_defined_at(present)} and {_defined_at(module)}. '
                    "Rename one of the two classes."
                )
        super()._register_module(module, module_name, force)


MODELS = Registry("model", "adperception.models")
DATASETS = Registry("dataset", "adperception.datasets")
TRANSFORMS = Registry("transform", "adperception.datasets.transforms")
EVALUATIONS = Registry("evaluation", "adperception.evaluation")
PREPARATIONS = Registry("preparation", "adperception.simulation")
OPTIMIZERS = Registry("optimizer", "adperception.engine")
SCHEDULES = Registry("schedule", "adperception.engine")
STRATEGIES = Registry("strategy", "adperception.engine")
GRAPH_SCHEDULES = Registry("graph schedule", "adperception.engine")


def build(registry: Registry, config: Mapping[str, Any], **extra: Any) -> Any:
    """Build ``config["type"]`` with the other keys as keyword arguments.

    Args:
        registry: one of this module's registries.
        config: mapping with ``type`` and keyword arguments; where it comes from a config file, errors name the line.
        extra: further keyword arguments that do not come from the config.

    Raises:
        ValueError: for a missing or unknown ``type`` or an unknown option, with the nearest valid name.
    """
    target = check(registry, config, **extra)
    return target(**{key: value for key, value in config.items() if key != "type"}, **extra)


def check(registry: Registry, config: Mapping[str, Any], **extra: Any) -> Any:
    """The class that ``build`` would instantiate, after checking type and option names; builds nothing.

    Raises:
        ValueError: as ``build``.
    """
    target = registry.find(config)
    parameters = inspect.signature(target).parameters
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    valid = [name for name, parameter in parameters.items() if name not in extra and parameter.kind not in variadic]
    for key in config:
        if key != "type" and key not in valid:
            place = location_of(config, key)
            raise ValueError(f'{place}"{key}" is not an option of {config["type"]}.{nearest(key, valid)}')
    for name in valid:
        if parameters[name].default is inspect.Parameter.empty and name not in config:
            place = location_of(config, "type")
            raise ValueError(f'{place}{config["type"]} needs the option "{name}".')
    return target


def _defined_at(target: Any) -> str:
    """``file:line`` of a class or function."""
    try:
        return f"{Path(inspect.getsourcefile(target) or '?')}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return f"{target.__module__}.{target.__qualname__}"
