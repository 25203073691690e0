"""Sparse 3D convolutions: one API, several backends, the same weights."""

from adperception.sparse.backends import available_backends, set_backend, use_backend, uses_planned_sites
from adperception.sparse.batch_norm import SparseBatchNorm1d
from adperception.sparse.checks import set_debug_mode
from adperception.sparse.layers import SparseConv3d, SparseConvolution, SparseSequential, SubMConv3d, name_layers
from adperception.sparse.precision import set_float32_precision
from adperception.sparse.site_levels import PendingLevels, PlannedSites, plan_levels
from adperception.sparse.static_nonzero import static_nonzero
from adperception.sparse.tensor import SparseTensor

__all__ = [
    "PendingLevels",
    "PlannedSites",
    "SparseBatchNorm1d",
    "SparseConv3d",
    "SparseConvolution",
    "SparseSequential",
    "SparseTensor",
    "SubMConv3d",
    "available_backends",
    "name_layers",
    "plan_levels",
    "set_backend",
    "set_debug_mode",
    "set_float32_precision",
    "static_nonzero",
    "use_backend",
    "uses_planned_sites",
]
