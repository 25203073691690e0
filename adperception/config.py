"""Reading config files. The only module that knows mmengine's Config.

A config is a Python file that holds *values*: constants, lists, tuples and ``dict(...)``, at most one ``_base_``
(which has none itself). Anything else (imports, expressions, other calls) is refused before the file is evaluated, so
reading a config never executes somebody's code, and every value can be read off the page.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import pprint
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config as MmengineConfig

from adperception.located_dict import LocatedDict

__all__ = ["Config", "format_config", "load_config", "nearest"]

KeyPath = tuple[str | int, ...]
COMMAND_LINE = "--cfg-options"


@dataclass(frozen=True)
class Config:
    """A resolved config.

    Attributes:
        path: the file it was read from.
        values: nested plain values; sections are ``LocatedDict``, so that errors can name file and line.
        overrides: one line per command-line override, e.g. ``"--cfg-options train.steps: 120 -> 20"``.
    """

    path: Path
    values: LocatedDict
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file name without its suffix."""
        return self.path.stem

    def sha256(self) -> str:
        """A hash of the values (not of comments or layout)."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a config file, its ``_base_`` and command-line overrides.

    Args:
        path: config file.
        overrides: ``"a.b=value"`` strings. The section must exist (``init`` and ``distributed`` need not), and the
            value must have the type of the present one (an int is taken where a float stands; anything may replace
            ``None``). A key that the section does not write out yet is added; whoever reads the section checks its
            name. List items are named by position (``evaluations.0.every_epochs=2``). Values are Python literals; bare
            words are strings.

    Raises:
        FileNotFoundError: if the file or its base does not exist.
        ValueError: for anything that is not a plain value, ``pkg::`` bases, a second ``_base_`` level, and overrides
            that name an unknown section or have another type.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config {path} does not exist (current directory: {Path.cwd()}).")
    locations = _locate(path, is_base=False)
    raw = MmengineConfig.fromfile(
        str(path),
        use_predefined_variables=False,
        import_custom_modules=False,
        use_environment_variables=False,
        lazy_import=False,
    ).to_dict()
    values: LocatedDict = _with_locations(raw, (), locations)
    echoes = tuple(_override(values, text) for text in overrides)
    return Config(path, values, echoes)


def format_config(values: object) -> str:
    """The resolved config as Python text that could be a config file again."""
    assert isinstance(values, dict)
    return "\n".join(f"{key} = {_format(value, 0)}" for key, value in values.items()) + "\n"


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint for an unknown ``word``: the nearest of ``known``, and all of them."""
    close = difflib.get_close_matches(word, known, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    return f"{hint} Available: {', '.join(known)}."


def _locate(path: Path, is_base: bool) -> dict[KeyPath, str]:
    """``file:line`` of every key, after checking that the file holds plain values only."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except SyntaxError as error:
        raise ValueError(f"{path}:{error.lineno}  is not valid Python: {error.msg}.") from error
    places: dict[KeyPath, str] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
        if not isinstance(statement, ast.Assign) or not isinstance(target, ast.Name):
            raise ValueError(_not_plain(path, statement))
        if target.id == "_base_":
            places.update(_locate_base(path, statement, is_base))
            continue
        for key in [k for k in places if k[0] == target.id and not _is_dict(statement.value)]:
            del places[key]
        for key_path, line in _keys(path, statement.value, (target.id,), statement.lineno):
            places[key_path] = f"{path}:{line}"
    return places


def _locate_base(path: Path, statement: ast.Assign, is_base: bool) -> dict[KeyPath, str]:
    value = statement.value
    base = value.value if isinstance(value, ast.Constant) else None
    place = f"{path}:{statement.lineno}  _base_"
    if not isinstance(base, str):
        raise ValueError(f'{place} must be one file name, e.g. _base_ = "./ad_l_jepa_kitti.py".')
    if "::" in base:
        raise ValueError(
            f'{place}="{base}" asks for a config inside another installed package ("pkg::"). That is not supported: '
            "copy the values into a file of your own and name it by its relative path."
        )
    if is_base:
        raise ValueError(f'{place}="{base}": a base config has no _base_ itself (one level only). Merge the two files.')
    base_path = path.parent / base
    if not base_path.is_file():
        raise FileNotFoundError(f'{place}="{base}" does not exist (looked at {base_path}).')
    return _locate(base_path, is_base=True)


def _keys(path: Path, node: ast.expr, at: KeyPath, line: int) -> Iterator[tuple[KeyPath, int]]:
    """The key paths below ``node`` with their lines."""
    yield at, line
    if isinstance(node, ast.Call) and _is_dict(node) and not node.args:
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ValueError(_not_plain(path, node))
            yield from _keys(path, keyword.value, (*at, keyword.arg), keyword.value.lineno)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                raise ValueError(_not_plain(path, node))
            yield from _keys(path, value, (*at, key.value), key.lineno)
    elif isinstance(node, (ast.List, ast.Tuple)):
        for index, value in enumerate(node.elts):
            yield from _keys(path, value, (*at, index), value.lineno)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return
    elif not isinstance(node, ast.Constant) or isinstance(node.value, (bytes, complex)):
        raise ValueError(_not_plain(path, node))


def _is_dict(node: ast.expr) -> bool:
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict"
    return is_call or isinstance(node, ast.Dict)


def _not_plain(path: Path, node: ast.stmt | ast.expr) -> str:
    text = ast.unparse(node).splitlines()[0][:80]
    return (
        f"{path}:{node.lineno}  `{text}` is not a plain value. A config holds only `name = value` with numbers, "
        "strings, True, False, None, lists, tuples and dict(...)."
    )


def _with_locations(value: Any, at: KeyPath, places: dict[KeyPath, str]) -> Any:
    if isinstance(value, dict):
        below = {key: _with_locations(item, (*at, key), places) for key, item in value.items()}
        return LocatedDict(below, {key: places[(*at, key)] for key in below if (*at, key) in places})
    if isinstance(value, (list, tuple)):
        return type(value)(_with_locations(item, (*at, index), places) for index, item in enumerate(value))
    return value


_SECTIONS_TO_OPEN = ("init", "distributed")
"""Sections that the command line may give although the file has none: what a run starts from, and how its processes
come together, are no part of a recipe. Sections inside them are opened as well (``distributed.schedule.type=...``)."""


def _override(values: LocatedDict, text: str) -> str:
    """Apply ``"a.b=value"`` in place; returns the line to echo."""
    dotted, separator, written = text.partition("=")
    if not separator or not dotted:
        raise ValueError(f"{COMMAND_LINE} {text}: write key=value, e.g. train.steps=20.")
    section: Any = values
    *parents, last = dotted.split(".")
    opens = bool(parents) and parents[0] in _SECTIONS_TO_OPEN
    for depth, key in enumerate(parents):
        if opens and isinstance(section, LocatedDict) and section.get(key) is None:
            section[key] = LocatedDict({}, {})
        known = _children(section)
        if key not in known:
            where = ".".join(parents[:depth]) or "the config"
            raise ValueError(f'{COMMAND_LINE} {text}: "{key}" is not a section of {where}.{nearest(key, known)}')
        section = section[int(key)] if isinstance(section, (list, tuple)) else section[key]
    new = _literal(written)
    if isinstance(section, LocatedDict):
        before = f"{section[last]!r} -> " if last in section else "(not in the file) "
        section[last] = new = _checked(new, section.get(last), text)
        section.locations[last] = COMMAND_LINE
    elif isinstance(section, list) and last in _children(section):
        before = f"{section[int(last)]!r} -> "
        section[int(last)] = new = _checked(new, section[int(last)], text)
    else:
        raise ValueError(f"{COMMAND_LINE} {text}: {'.'.join(parents)} is {section!r}; replace the whole value.")
    return f"{COMMAND_LINE} {dotted}: {before}{new!r}"


def _children(section: Any) -> list[str]:
    if isinstance(section, dict):
        return list(section)
    return [str(index) for index in range(len(section))] if isinstance(section, (list, tuple)) else []


def _literal(written: str) -> Any:
    try:
        return ast.literal_eval(written)
    except (ValueError, SyntaxError):
        return written


def _checked(new: Any, present: Any, text: str) -> Any:
    if present is None or new is None:
        return new
    if isinstance(present, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(present, (list, tuple)) and isinstance(new, (list, tuple)):
        return type(present)(new)
    if type(new) is not type(present) and not (isinstance(present, dict) and isinstance(new, dict)):
        raise ValueError(
            f"{COMMAND_LINE} {text}: the value is {type(new).__name__} {new!r}, but the config has "
            f"{type(present).__name__} {present!r} there."
        )
    return new


def _format(value: Any, indent: int) -> str:
    pad = " " * (indent + 4)
    if isinstance(value, dict):
        rows = [f"{pad}{key}={_format(item, indent + 4)},\n" for key, item in value.items()]
        return "dict(\n" + "".join(rows) + " " * indent + ")"
    if isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
        rows = [f"{pad}{_format(item, indent + 4)},\n" for item in value]
        opening, closing = "[]" if isinstance(value, list) else "()"
        return opening + "\n" + "".join(rows) + " " * indent + closing
    return pprint.pformat(value, width=100, compact=True).replace("\n", "\n" + pad)
