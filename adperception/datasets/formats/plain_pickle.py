"""Reading pickles of plain values without executing anything in them. For converters only.

A pickle is a program. Here it is interpreted step by step: values are put on a stack, and where the program names a
function or class, only the few names are understood with which numpy stores arrays. They are not called: their
arguments are read, and the array is made from its bytes. Python's own unpickler is not involved.
"""

from __future__ import annotations

import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_plain_pickle"]

_NDARRAY, _DTYPE = "numpy.ndarray", "numpy.dtype"
# numpy 2 renamed its inner packages; files know both names. _frombuffer is how pickle protocol 5 stores arrays.
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_KNOWN = {_NDARRAY, _DTYPE, *_RECONSTRUCT, *_SCALAR, *_FROM_BUFFER}

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PLAIN_DTYPE = re.compile(r"[biufSU]\d*")


class _Refused(ValueError):
    """The file asks for something that this reader does not do."""


class _Global:
    """A function or class that the program names."""

    def __init__(self, name: str) -> None:
        if name not in _KNOWN:
            raise _Refused(
                f"it names the global {name}, and only plain values and numpy arrays are read. A pickle that asks for "
                "other code is not label data: get the file from its source again."
            )
        self.name = name


class _Dtype:
    """A numpy type as the program describes it."""

    def __init__(self, code: Any) -> None:
        code = code.decode() if isinstance(code, bytes) else code
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise _Refused(f"it holds an array of type {code!r}, and only arrays of numbers and text are read.")
        self.code, self.order = code, "="

    def build(self, state: Any) -> None:
        self.order = {"<": "<", ">": ">", "|": "|", "=": "="}[state[1]]
        if any(part is not None for part in state[2:5]):
            raise _Refused("it holds an array with named fields, and only arrays of numbers and text are read.")

    def real(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order if self.order in '<>' else '='}{self.code}")


class _Array:
    """An array that waits for its content."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> None:
        # Python 2 stored bytes as text.
        content = data.encode("latin-1") if isinstance(data, str) else bytes(data)
        flat = np.frombuffer(content, dtype=dtype.real()) if content else np.zeros(0, dtype=dtype.real())
        self.value = flat.reshape(tuple(int(n) for n in shape), order="F" if order == "F" else "C").copy()


def read_plain_pickle(path: Path | str) -> Any:
    """The value in a pickle of dicts, lists, tuples, strings, numbers and numpy arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is cut off, is no pickle, or names anything else (with its name); nothing is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no pickle here.")
    try:
        return _plain(_interpret(path.read_bytes()), {})
    except _Refused as refusal:
        raise ValueError(f"{path}: not read: {refusal}") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{path}: cut off, damaged or no pickle ({type(error).__name__}: {error}). Copy the file again."
        ) from error


def _interpret(content: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []  # heights of the stack
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        height = marks.pop()
        values = stack[height:]
        del stack[height:]
        return values

    for opcode, argument, position in pickletools.genops(content):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            break
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _NUMBERS or name in _TEXTS:
            stack.append(argument)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "LIST":
            stack.append(since_mark())
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "DICT":
            values = since_mark()
            stack.append(dict(zip(values[::2], values[1::2], strict=True)))
        elif name == "APPEND":
            value = stack.pop()
            stack[-1].append(value)
        elif name == "APPENDS":
            values = since_mark()
            stack[-1].extend(values)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        elif name == "SETITEMS":
            values = since_mark()
            stack[-1].update(zip(values[::2], values[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_Global(str(argument).replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Global(f"{module}.{attribute}"))
        elif name == "REDUCE":
            arguments, target = stack.pop(), stack.pop()
            stack.append(_made(target, arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].build(state)
        else:
            raise _Refused(
                f"the instruction {name} at byte {position}, which plain values and numpy arrays have no use for."
            )
    (value,) = stack
    return value


def _made(target: Any, arguments: tuple[Any, ...]) -> Any:
    """What ``target(*arguments)`` stands for, by the name of ``target``; it is not called."""
    if target.name == _DTYPE:
        return _Dtype(arguments[0])
    array = _Array()
    if target.name in _RECONSTRUCT:
        if getattr(arguments[0], "name", None) != _NDARRAY:
            raise _Refused("it holds a subclass of numpy's array.")
        return array
    if target.name in _FROM_BUFFER:
        data, dtype, shape, order = arguments
        array.fill(data, dtype, shape, order)
        return array
    if target.name in _SCALAR:
        array.fill(arguments[1], arguments[0], (), "C")
        return array
    raise _Refused(f"it calls {target.name}.")


def _plain(value: Any, known: dict[int, Any]) -> Any:
    """``value`` with its arrays; numbers of numpy become those of Python.

    Args:
        value: of the interpreter; it may hold the same list many times, which is converted once.
        known: what has been converted, by identity.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if id(value) not in known:
        known[id(value)] = _converted(value, known)
    return known[id(value)]


def _converted(value: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without content")
        return value.value.item() if value.value.ndim == 0 else value.value
    if isinstance(value, dict):
        return {_plain(k, known): _plain(v, known) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(v, known) for v in value)
    name = value.name if isinstance(value, _Global) else type(value).__name__.strip("_").lower()
    raise _Refused(f"it holds a value of type {name}.")
