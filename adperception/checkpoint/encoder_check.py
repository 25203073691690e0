"""A stored input and output of an encoder: the one proof that converted kernels are not permuted.

Shapes cannot tell layouts apart where a layer has as many input as output channels. A pair that was computed where the
weights come from can. The file is a plain ``.npz``:

* ``features`` ``(V, C)`` float32, ``coordinates`` ``(V, 4)`` int32 (batch 0, z, y, x): the voxels of one frame;
* ``sparse_shape`` ``(3,)``: voxels along z (one more than the grid has), y, x;
* ``cells`` ``(n, 2)`` (y, x) and ``values`` ``(n, 256)``: the bird's-eye-view map where it is not zero.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adperception.checkpoint.layout import CheckpointError
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.models.backbones.voxel_res_backbone_8x import VoxelResBackBone8x
from adperception.structures import VoxelGrid, Voxels

__all__ = ["build_encoder", "verify_encoder", "write_encoder_check"]

TOLERANCE = 1e-4
"""Largest accepted difference, relative to the largest value of the map."""

_KEYS = ("features", "coordinates", "sparse_shape", "cells", "values")


def build_encoder(state: dict[str, Tensor], sparse_shape: tuple[int, int, int] = (41, 64, 64)) -> VoxelBackBone8x:
    """The encoder, with or without residual blocks, that has the given tensors (KRSC), in evaluation mode.

    Raises:
        CheckpointError: if a tensor is missing, too many, or of another shape.
    """
    z, y, x = sparse_shape
    grid = VoxelGrid.create((0, 0, 0, 0.1 * x, 0.1 * y, 0.1 * (z - 1)), (0.1, 0.1, 0.1))
    first = state.get("conv_input.0.weight")
    if first is None:
        raise CheckpointError("the encoder lacks conv_input.0.weight.")
    try:
        residual = "conv1.0.conv1.weight" in state
        encoder = (VoxelResBackBone8x if residual else VoxelBackBone8x)(first.shape[-1], grid)
        encoder.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"the tensors do not make an encoder: {error}") from error
    return encoder.eval()


@torch.no_grad()
def write_encoder_check(path: Path, state: dict[str, Tensor]) -> None:
    """Write the pair of an encoder with the given tensors (KRSC) for 400 random voxels."""
    shape = (41, 64, 64)
    encoder = build_encoder(state, shape)
    rng = np.random.default_rng(0)
    flat = np.sort(rng.choice(40 * 24 * 24, size=400, replace=False))
    z, y, x = np.unravel_index(flat, (40, 24, 24))
    coordinates = np.stack([np.zeros_like(z), z, y + 16, x + 16], axis=1).astype(np.int32)
    features = rng.normal(size=(len(flat), encoder.in_channels)).astype(np.float32)
    bev = _forward(encoder, features, coordinates)
    cells = np.argwhere(bev.any(axis=0)).astype(np.int32)
    values = bev[:, cells[:, 0], cells[:, 1]].T.copy()
    np.savez(path, features=features, coordinates=coordinates, sparse_shape=shape, cells=cells, values=values)


@torch.no_grad()
def verify_encoder(path: Path, state: dict[str, Tensor]) -> float:
    """Run the encoder with the given tensors (KRSC) on a stored input.

    Returns:
        The largest difference from the stored output, relative to its largest value.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file is no such pair, or the outputs differ by more than ``TOLERANCE``.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no stored pair here.")
    try:
        with np.load(path) as stored:
            features, coordinates, shape, cells, values = (stored[key] for key in _KEYS)
    except (KeyError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: is no stored pair with {', '.join(_KEYS)} ({error}).") from error
    z, y, x = (int(n) for n in shape)
    bev = _forward(build_encoder(state, (z, y, x)), features, coordinates)
    expected = np.zeros_like(bev)
    expected[:, cells[:, 0], cells[:, 1]] = values.T
    difference = float(np.abs(bev - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"{path}: the converted encoder gives another output: the largest difference is {difference:.2g} of the "
            f"largest value, allowed {TOLERANCE:g}. The kernels are probably in another layout than assumed."
        )
    return difference


def _forward(encoder: VoxelBackBone8x, features: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    voxels = Voxels(torch.from_numpy(features), torch.from_numpy(coordinates.astype(np.int32)), 1)
    return np.asarray(encoder(voxels)[0].numpy())
