"""Count where Python waits for the GPU, on a GPU or, by following tensors, on a CPU.

A step that reads a value of the GPU (``float(loss)``, the size of ``x[mask]``) waits until everything launched before
has been computed, and the GPU then idles while Python launches again. On CUDA, torch itself reports such places. On a
CPU nothing waits, so there ``HostReads`` follows where each tensor would live in a run on a GPU:

- on the host: what is made without a device (``torch.zeros(3)``, ``torch.rand(3, generator=cpu_generator)``,
  ``torch.from_numpy``), what ``.cpu()`` or ``.to("cpu")`` gave, what is computed from those alone, and what is made
  within ``on_host()``;
- on the device: everything else, so parameters, the batch, and what ``.to(device)`` gave.

Reading the second kind counts, as do copies between the two that wait (``.to(device)`` without ``non_blocking``,
``torch.tensor(values, device=device)``, an index that lies on the host).
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["HostReads", "on_host"]

_PACKAGE = str(Path(__file__).resolve().parents[1])
_ROOT = str(Path(__file__).resolve().parents[2])
_TORCH = str(Path(torch.__file__).parent)

_READERS = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__repr__, Tensor.__reduce_ex__})
_MAKERS = frozenset(
    getattr(torch, name)
    for name in (
        *("arange", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "ones", "rand", "randint"),
        *("randn", "randperm", "scalar_tensor", "tril_indices", "triu_indices", "zeros"),
    )
)
_FROM_VALUES = frozenset({torch.tensor, torch.as_tensor, Tensor.new_tensor})

# Operators whose result has a size, or a Python value, that only the data tell.
_READING_OPERATORS = frozenset(
    {
        *("_coalesce", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "_local_scalar_dense", "_to_sparse"),
        *(
            "_unique",
            "_unique2",
            "allclose",
            "bincount",
            "equal",
            "masked_select",
            "nonzero",
            "unique_consecutive",
            "unique_dim",
        ),
        "unique_dim_consecutive",
    }
)
_INDEXING = frozenset({"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"})
_MASKS = (torch.bool, torch.uint8)


class on_host(contextlib.ContextDecorator):
    """Code that works on the CPU in any run, as a ``with`` block or a decorator: its reads are not counted.

    What is made within lives on the host for ``HostReads``. It costs nothing worth mentioning outside of it.
    """

    depth = 0

    def __enter__(self) -> on_host:
        on_host.depth += 1
        return self

    def __exit__(self, *exception: object) -> None:
        on_host.depth -= 1


class HostReads(contextlib.AbstractContextManager["HostReads"]):
    """Counts, within a ``with`` block, what makes the host wait for the device; backward passes included.

    On a CPU, enter it with model and optimizer already built, and mark what lives on the CPU in any run with ``host``
    or ``on_host``; a ``torch.device`` always means the device, only the string ``"cpu"`` the host.

    Args:
        ignore: places to leave out: parts of the descriptions in ``places``, such as a file's name.
        host: tensors that exist already and live on the host in any run.
        cuda: count torch's own reports of synchronisations instead; ``None``: if there is a GPU.

    Attributes:
        places: what was counted: ``"nonzero in adperception/models/x.py:12 (losses)"``, the innermost line inside the
            package, or outside of torch if there is none.
    """

    def __init__(self, ignore: Sequence[str] = (), host: Iterable[Tensor] = (), cuda: bool | None = None) -> None:
        self._ignore = tuple(ignore)
        self._cuda = torch.cuda.is_available() if cuda is None else cuda
        self._on_host = WeakTensorKeyDictionary()
        for tensor in host:
            self._on_host[tensor] = True
        self._suspended = 0
        self._stack = contextlib.ExitStack()
        self.places: list[str] = []

    @property
    def count(self) -> int:
        """How often the host would have waited."""
        return len(self.places)

    def clear(self) -> None:
        """Forget what was counted; where tensors live is kept."""
        self.places.clear()

    def __enter__(self) -> HostReads:
        if self._cuda:
            self._stack.enter_context(_synchronisations(self.add))
        else:
            self._stack.enter_context(_Operators(self))
            self._stack.enter_context(_Functions(self))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def add(self, what: str) -> None:
        """Count ``what`` at the present place, unless it is ignored or within ``on_host``."""
        if on_host.depth or self._suspended:
            return
        description = f"{what} in {_place()}"
        if not any(part in description for part in self._ignore):
            self.places.append(description)

    def is_on_device(self, value: Any) -> bool:
        """Whether ``value`` is a tensor that would be on the GPU."""
        return isinstance(value, Tensor) and (isinstance(value, nn.Parameter) or value not in self._on_host)

    def put(self, tensor: Tensor, on_device: bool) -> None:
        """Note where ``tensor`` lives."""
        if not on_device or on_host.depth:
            self._on_host[tensor] = True
        elif tensor in self._on_host:
            del self._on_host[tensor]

    @contextlib.contextmanager
    def suspended(self) -> Any:
        """Nothing is counted within: what is done there is already, or does not happen on a GPU."""
        self._suspended += 1
        try:
            yield
        finally:
            self._suspended -= 1


class _Functions(TorchFunctionMode):
    """What Python calls: decides where new tensors live, and sees readers that are no operators."""

    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            result = func(*args, **kwargs)
            self._reads.put(result, _on_device(kwargs.get("device")))
            return result
        if func in _FROM_VALUES:
            return self._from_values(func, args, kwargs)
        if func is Tensor.to or func is Tensor.cpu:
            return self._move(func, args, kwargs)
        if func in _READERS:
            return self._read(func, args, kwargs)
        if func is Tensor.__getitem__ or func is Tensor.__setitem__:
            return self._index(func, args, kwargs)
        if func is F.one_hot:  # which looks at the values on a CPU in any case
            if self._reads.is_on_device(args[0]) and _argument(args, kwargs, 1, "num_classes", -1) < 0:
                self._reads.add("one_hot without num_classes")
            with self._reads.suspended():
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _read(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self._reads.is_on_device(args[0]):
            self._reads.add(func.__name__)
        with self._reads.suspended():
            return func(*args, **kwargs)

    def _from_values(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A tensor of Python values: made on the host, then copied."""
        method = func is Tensor.new_tensor
        data = _argument(args, kwargs, int(method), "data", None)
        device = kwargs.get("device")
        if method and device is None:
            target = self._reads.is_on_device(args[0])
        elif isinstance(data, Tensor) and device is None:
            target = self._reads.is_on_device(data)
        else:
            target = _on_device(device)
        for value in tree_leaves(data):
            if self._reads.is_on_device(value) and value is not data:
                self._reads.add(f"{func.__name__} of a tensor on the device")
        if isinstance(data, Tensor):
            self._note_copy(self._reads.is_on_device(data), target)
        elif target:
            self._reads.add(f"{func.__name__} of values on the host")
        with self._reads.suspended():
            result = func(*args, **kwargs)
        return self._placed(result, data, target)

    def _move(self, func: Any, args: Any, kwargs: Any) -> Any:
        source = self._reads.is_on_device(args[0])
        options = [*args[1:], *(kwargs[key] for key in ("device", "other") if key in kwargs)]
        target = False if func is Tensor.cpu else source
        for option in options:
            if isinstance(option, Tensor):
                target = self._reads.is_on_device(option)
            elif isinstance(option, (str, torch.device)):
                target = _on_device(option)
        flags = [option for option in options if isinstance(option, bool)]
        if not kwargs.get("non_blocking", bool(flags) and flags[0]):
            self._note_copy(source, target)
        with self._reads.suspended():
            result = func(*args, **kwargs)
        return self._placed(result, args[0], target)

    def _note_copy(self, source: bool, target: bool) -> None:
        if source and not target:
            self._reads.add("copy to the host")
        elif target and not source:
            self._reads.add("copy to the device")

    def _placed(self, result: Tensor, original: Any, on_device: bool) -> Tensor:
        """``result`` with its place noted; a tensor of its own if ``original``, which did not need to move, stays."""
        if result is original and self._reads.is_on_device(original) != on_device:
            result = result.view_as(result)
        self._reads.put(result, on_device)
        return result

    def _index(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensor, index = args[0], args[1]
        parts = index if isinstance(index, tuple) else (index,)
        if not self._reads.is_on_device(tensor):
            return func(*args, **kwargs)
        if any(isinstance(part, (list, np.ndarray)) for part in parts):
            self._reads.add("index on the host")
            with self._reads.suspended():
                return func(*args, **kwargs)
        if func is Tensor.__setitem__ and not isinstance(args[2], Tensor):
            indices = [part for part in parts if isinstance(part, Tensor) and part.dim() > 0]
            masks = [part for part in indices if part.dtype in _MASKS]
            if len(masks) > 1:
                self._reads.add("mask as index")
            elif len(indices) > len(masks):
                self._reads.add("number copied to indexed places")
            # One mask and a number are a masked_fill.
            with self._reads.suspended():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What runs, in backward passes as well: operators that read, and where their results live."""

    def __init__(self, reads: HostReads) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = [self._reads.is_on_device(tensor) for tensor in tensors]
        name = func._schema.name.partition("::")[2]
        if any(on_device):
            what = self._waits(name, func, args, kwargs)
            if what:
                self._reads.add(what)
        result = func(*args, **kwargs)
        # lift_fresh gives tensors of Python values and numpy arrays to autograd.
        if on_host.depth or name == "lift_fresh" or (tensors and not any(on_device)):
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self._reads.put(leaf, on_device=False)
        return result

    def _waits(self, name: str, func: Any, args: Any, kwargs: Any) -> str:
        """What the host would wait for; empty if for nothing."""
        is_on_device = self._reads.is_on_device
        if name in _READING_OPERATORS:
            return {"_local_scalar_dense": "item"}.get(name, name)
        if name == "repeat_interleave":
            return name if kwargs.get("output_size") is None else ""
        if name == "copy_" and is_on_device(args[0]) != is_on_device(args[1]):
            waits = not _argument(args, kwargs, 2, "non_blocking", False)
            return ("copy to the device" if is_on_device(args[0]) else "copy to the host") if waits else ""
        if name in _INDEXING:
            indices = [index for index in args[1] if isinstance(index, Tensor)]
            if any(index.dtype in _MASKS for index in indices):
                return "mask as index"
            if is_on_device(args[0]) and not all(is_on_device(index) for index in indices):
                return "index on the host"
        return ""


def _argument(args: Any, kwargs: Any, position: int, name: str, default: Any) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def _on_device(device: Any) -> bool:
    """Whether a ``device`` argument means the GPU."""
    return device is not None and not (isinstance(device, str) and device.startswith("cpu"))


@contextlib.contextmanager
def _synchronisations(add: Callable[[str], None]) -> Any:
    """Torch's reports of synchronising CUDA operations go to ``add``; other warnings are shown as ever."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        show = warnings.showwarning

        def note(message: Warning | str, *rest: Any, **options: Any) -> None:
            if "synchronizing CUDA operation" in str(message):
                add("synchronisation")
            elif "Synchronization debug mode" not in str(message):
                show(message, *rest, **options)

        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _place() -> str:
    """``"adperception/models/x.py:12 (losses)"``: the innermost frame in the package, else outside of torch."""
    outside = ""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__:
            here = f"{file.removeprefix(_ROOT + '/')}:{frame.f_lineno} ({frame.f_code.co_name})"
            if file.startswith(_PACKAGE):
                return here
            library = file.startswith((_TORCH, "<")) or Path(file).name in ("contextlib.py", "warnings.py")
            outside = outside or ("" if library else here)
        frame = frame.f_back
    return outside
