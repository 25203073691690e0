"""All trainable parameters of a model as one vector."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["FlatParams", "Segment", "chunks"]

# Parameters start at multiples of 64 bytes, as torch's allocator would place them, so that kernels which choose their
# path by alignment give the same bits on the views as on parameters with memory of their own.
_ALIGNMENT = 16
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Segment:
    """Where one parameter lies in the vector.

    Attributes:
        name: of the parameter.
        offset: of its first element.
        numel: number of elements.
        shape: of the parameter.
        stride: of the parameter; memory order is kept (channels-last stays channels-last).
        dtype: of the parameter.
    """

    name: str
    offset: int
    numel: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class FlatParams:
    """Makes every parameter a view into one vector, so that a round touches one tensor and copies nothing.

    Parameters with fewer bits than the vector (bfloat16, float16) keep memory of their own: ``gather`` copies them in
    before a round and ``scatter`` back afterwards. Nobody may give a parameter other memory later
    (``parameter.data = ...``); ``check`` notices. Gaps between parameters are zero and stay zero under any linear rule.

    Args:
        named: names and parameters; shared (tied) ones once, without those that need no gradient.

    Attributes:
        vector: (P,) float32, or float64 if any parameter is.
        segments: where each parameter lies, in order.

    Raises:
        ValueError: without parameters, for parameters on several devices, or for one that is not a real number.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        self._parameters = dict(named)
        self._build()

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The parameters, in the order of the segments."""
        return tuple(self._parameters.values())

    @property
    def numel(self) -> int:
        """Length of the vector, P."""
        return self.vector.numel()

    def _build(self) -> None:
        parameters = self._parameters
        if not parameters:
            raise ValueError("there is no parameter that requires a gradient, so there is nothing to synchronise.")
        devices = {p.device for p in parameters.values()}
        if len(devices) > 1:
            raise ValueError(f"the parameters lie on {sorted(map(str, devices))}; move the model to one device first.")
        for name, parameter in parameters.items():
            if not parameter.dtype.is_floating_point:
                raise ValueError(
                    f'parameter "{name}" is {parameter.dtype}; only real floating-point ones can be mixed.'
                )
        dtype = torch.float64 if any(p.dtype == torch.float64 for p in parameters.values()) else torch.float32
        segments, offset = [], 0
        for name, parameter in parameters.items():
            stride = parameter.stride() if _is_dense(parameter) else parameter.contiguous().stride()
            shape = tuple(parameter.shape)
            segments.append(Segment(name, offset, parameter.numel(), shape, tuple(stride), parameter.dtype))
            offset += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        self.segments = tuple(segments)
        self.vector = torch.zeros(offset, dtype=dtype, device=next(iter(devices)))
        with torch.no_grad():
            for view, parameter in zip(self.views(self.vector), self.parameters, strict=True):
                view.copy_(parameter)
                if parameter.dtype == dtype:
                    parameter.data = view  # the only place that gives a parameter other memory
        self._copied = [p for p in self.parameters if p.dtype != dtype]

    def views(self, vector: Tensor) -> list[Tensor]:
        """One tensor per parameter, of its shape, into ``vector`` (P or more elements)."""
        return [torch.as_strided(vector, s.shape, s.stride, vector.storage_offset() + s.offset) for s in self.segments]

    def parts(self, vector: Tensor) -> list[Tensor]:
        """One 1-D tensor per parameter into ``vector`` (P or more elements)."""
        return [vector[s.offset : s.offset + s.numel] for s in self.segments]

    @torch.no_grad()
    def gather(self) -> None:
        """Copy parameters of another precision into the vector."""
        if self._copied:
            for view, parameter in zip(self.views(self.vector), self.parameters, strict=True):
                if parameter.dtype != self.vector.dtype:
                    view.copy_(parameter)

    @torch.no_grad()
    def scatter(self) -> None:
        """Copy the vector into parameters of another precision."""
        if self._copied:
            for view, parameter in zip(self.views(self.vector), self.parameters, strict=True):
                if parameter.dtype != self.vector.dtype:
                    parameter.copy_(view)

    def check(self, trainable: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Nothing may have been moved out of the vector, added or unfrozen behind its back.

        Raises:
            RuntimeError: naming the first parameter that was.
        """
        base, size = self.vector.data_ptr(), self.vector.element_size()
        for segment, parameter in zip(self.segments, self.parameters, strict=True):
            if parameter.dtype == self.vector.dtype and parameter.data_ptr() != base + segment.offset * size:
                raise RuntimeError(
                    f'parameter "{segment.name}" got other memory after SyncOptimizer was made (model.to(...), or '
                    "parameter.data = ...). Move and load the model first, and copy into parameters in place."
                )
        known = {id(p) for p in self.parameters}
        for name, parameter in trainable:
            if id(parameter) not in known:
                raise RuntimeError(
                    f'parameter "{name}" requires a gradient but takes no part in the rounds. Add it on every worker '
                    "with SyncOptimizer.add_param_group or adopt_new_parameters, at the same step."
                )

    def extend(self, named: Iterable[tuple[str, nn.Parameter]]) -> list[tuple[slice, slice]]:
        """Take further parameters in, at the end; the vector is made anew.

        Returns:
            Pairs of an old and a new slice, for moving other vectors of the old length.
        """
        old = self.segments
        self._parameters.update(named)
        self._build()
        new = self.segments[: len(old)]
        return [
            (slice(o.offset, o.offset + o.numel), slice(n.offset, n.offset + n.numel))
            for o, n in zip(old, new, strict=True)
        ]

    def fingerprint(self) -> str:
        """Hash of names, shapes and precisions, which have to be the same on all workers."""
        text = "\n".join(f"{s.name} {s.shape} {s.stride} {s.dtype}" for s in self.segments)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def chunks(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same slices of vectors of one length, small enough for caches and for temporary results."""
    for start in range(0, vectors[0].numel(), _CHUNK):
        yield tuple(vector[start : start + _CHUNK] for vector in vectors)


def _is_dense(parameter: Tensor) -> bool:
    """Whether the elements fill their memory without gaps or overlaps, in whatever order."""
    expected = 1
    for stride, size in sorted((st, si) for st, si in zip(parameter.stride(), parameter.shape, strict=True) if si > 1):
        if stride != expected:
            return False
        expected *= size
    return True
