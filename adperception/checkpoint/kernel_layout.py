"""In which order the axes of sparse convolution weights lie, and how to bring them into ours.

Kernel axes are always z, y, x; libraries differ in where input and output channels stand:

========  ========================  ==================================================
layout    shape                     written by
========  ========================  ==================================================
KRSC      (out, kz, ky, kx, in)     spconv 2.2 and newer, this package
RSKC      (kz, ky, kx, out, in)     spconv 2.0, and 2.1 with its "native" algorithm
RSCK      (kz, ky, kx, in, out)     spconv 1, mmcv's own sparse convolutions
conv3d    (out, in, kz, ky, kx)     torch's dense ``Conv3d``
========  ========================  ==================================================
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adperception.checkpoint.layout import CheckpointError

__all__ = ["KERNEL_LAYOUTS", "from_krsc", "infer_kernel_layout", "norm_of", "sparse_kernels", "to_krsc"]

_TO_KRSC = {"KRSC": (0, 1, 2, 3, 4), "RSKC": (3, 0, 1, 2, 4), "RSCK": (4, 0, 1, 2, 3), "conv3d": (0, 2, 3, 4, 1)}

KERNEL_LAYOUTS = tuple(_TO_KRSC)


def sparse_kernels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of 3D convolutions: all tensors with five axes."""
    return {name: value for name, value in state.items() if value.dim() == 5}


def infer_kernel_layout(state: Mapping[str, Tensor]) -> str:
    """The one layout in which every 3D kernel of an encoder makes sense.

    The number of output channels is known from the batch norm behind each kernel, the extent along z, y, x from the
    layer's name. A kernel with as many input as output channels looks alike in RSKC and RSCK, so one layout has to fit
    all kernels; those whose channel numbers differ decide.

    Args:
        state: an encoder's tensors, any prefix: ``<...>.0.weight`` a kernel and ``<...>.1.weight`` its batch norm's, in
            residual blocks ``<...>.conv1.weight`` and ``<...>.bn1.weight``.

    Raises:
        CheckpointError: if there is no kernel, or if no layout or more than one fits.
    """
    kernels = sparse_kernels(state)
    if not kernels:
        raise CheckpointError("kernel layout: the file has no sparse convolution, i.e. no tensor with five axes.")
    fitting, offender = set(KERNEL_LAYOUTS), ""
    for name, kernel in kernels.items():
        norm = state.get(norm_of(name))
        if norm is None:
            raise CheckpointError(
                f"kernel layout: {name} has no batch norm behind it, so its output channels are unknown."
            )
        extent = (3, 1, 1) if "conv_out." in name else (3, 3, 3)
        shape = tuple(kernel.shape)
        own = {
            layout
            for layout, order in _TO_KRSC.items()
            if (shape[order[0]], *(shape[axis] for axis in order[1:4])) == (len(norm), *extent)
        }
        if fitting and not fitting & own:
            offender = f"{name} {shape} fits {' or '.join(sorted(own)) or 'none'}, those before fit {_listed(fitting)}"
        fitting &= own
    if len(fitting) == 1:
        return fitting.pop()
    if offender:
        raise CheckpointError(f"kernel layout: no layout fits all {len(kernels)} kernels: {offender}.")
    raise CheckpointError(
        f"kernel layout: the shapes of all {len(kernels)} kernels fit {_listed(fitting)}. Say which with "
        "--kernel-layout."
    )


def norm_of(kernel: str) -> str:
    """Name of the weight of the batch norm behind a kernel."""
    stem, _, module = kernel.removesuffix(".weight").rpartition(".")
    return f"{stem}.{module.replace('conv', 'bn') if module.startswith('conv') else '1'}.weight"


def to_krsc(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """The same state dict with all 3D kernels brought from ``layout`` to KRSC."""
    order = _order(layout)
    return {k: v.permute(order).contiguous() if v.dim() == 5 else v for k, v in state.items()}


def from_krsc(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """The same state dict with all 3D kernels brought from KRSC to ``layout``."""
    order = _order(layout)
    inverse = tuple(order.index(axis) for axis in range(5))
    return {k: v.permute(inverse).contiguous() if v.dim() == 5 else v for k, v in state.items()}


def _order(layout: str) -> tuple[int, ...]:
    if layout not in _TO_KRSC:
        raise ValueError(f'kernel layout "{layout}" is unknown. Available: {", ".join(KERNEL_LAYOUTS)}.')
    return _TO_KRSC[layout]


def _listed(layouts: set[str]) -> str:
    return " and ".join(name for name in KERNEL_LAYOUTS if name in layouts)
