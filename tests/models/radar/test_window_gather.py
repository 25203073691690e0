from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from adperception.models.radar.window_gather import (
    PatchInput,
    WindowCells,
    Windows,
    WindowSize,
    gather_map,
    gather_patches,
    paste_maximum,
    strongest_azimuths,
)

SHAPE = (20, 16, 10)
SIZE = WindowSize(rows=8, dopplers=6, azimuth_gate=4, doppler_gate=2)


def windows(*places: tuple[int, int, int, int]) -> Windows:
    """Windows of (frame, row, azimuth, Doppler)."""
    frames, rows, azimuths, dopplers = torch.tensor(places).T
    return Windows(frames, rows, azimuths, dopplers, torch.zeros(len(places), 3))


EVERYWHERE = windows((0, 10, 8, 5), (1, 0, 0, 0), (1, 19, 15, 9), (0, 3, 2, 8))


def plain_patches(cubes: np.ndarray, chosen: Windows, content: PatchInput) -> tuple[np.ndarray, np.ndarray]:
    """The same patches, one cell at a time; rows outside of the cube are NaN."""
    _, moments, rows, azimuths, dopplers = cubes.shape
    power = cubes.astype(np.float64) ** 2
    made: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for n in range(len(chosen)):
        frame, i0, j0, k0 = (int(x[n]) for x in (chosen.frames, chosen.rows, chosen.azimuths, chosen.dopplers))
        beam = [(j0 + s) % azimuths for s in range(-SIZE.azimuth_gate // 2, SIZE.azimuth_gate // 2)]
        near = [(k0 + s) % dopplers for s in range(-SIZE.doppler_gate, SIZE.doppler_gate + 1)]
        columns = [(k0 + s) % dopplers for s in range(-SIZE.dopplers // 2, SIZE.dopplers // 2)]
        doppler: list[np.ndarray] = []
        angle: list[np.ndarray] = []
        for t in range(moments):
            line = {"light": 2, "projection": 1}.get(content)
            rd = np.full((line or len(beam), SIZE.rows, SIZE.dopplers), np.nan)
            ra = np.full((line or len(columns), SIZE.rows, azimuths), np.nan)
            for y in range(SIZE.rows):
                row = i0 + y - SIZE.rows // 2
                if not 0 <= row < rows:
                    continue
                cells = power[frame, t, row]
                for x, k in enumerate(columns):
                    values = {"projection": [cells[:, k].mean()], "channels": [cells[j, k] for j in beam]}
                    gated = [cells[j, k] for j in beam]
                    rd[:, y, x] = values.get(content, [np.mean(gated), np.max(gated)])
                for j in range(azimuths):
                    values = {"projection": [cells[j].mean()], "channels": [cells[j, k] for k in columns]}
                    gated = [cells[j, k] for k in near]
                    ra[:, y, j] = values.get(content, [np.mean(gated), np.max(gated)])
            doppler.append(rd)
            angle.append(ra)
        made[0].append(np.concatenate(doppler))
        made[1].append(np.concatenate(angle))
    return np.stack(made[0]), np.stack(made[1])


@pytest.mark.parametrize("content", ["light", "channels", "projection"])
def test_gather_is_the_plain_one(content: PatchInput) -> None:
    cubes = np.random.default_rng(0).rayleigh(10, (2, 3, *SHAPE)).astype(np.float32)
    made = gather_patches(torch.from_numpy(cubes), EVERYWHERE, SIZE, content)
    inside = made[2].numpy()[:, None]
    for patches, plain in zip(made[:2], plain_patches(cubes, EVERYWHERE, content), strict=True):
        assert patches.shape == plain.shape
        masked = np.where(np.broadcast_to(inside, plain.shape), patches.numpy(), np.nan)
        np.testing.assert_allclose(masked, plain, rtol=1e-5)


def test_strongest_azimuths_are_the_plain_ones() -> None:
    cubes = np.random.default_rng(0).rayleigh(10, (2, *SHAPE)).astype(np.float32)
    columns, powers = strongest_azimuths(torch.from_numpy(cubes), EVERYWHERE, SIZE)
    cells = WindowCells.of(EVERYWHERE, SIZE, SHAPE)
    for n, y, x in itertools.product(range(len(EVERYWHERE)), range(SIZE.rows), range(SIZE.dopplers)):
        if not bool(cells.inside[n, y]):
            continue
        line = cubes[EVERYWHERE.frames[n], cells.rows[n, y, 0], :, cells.dopplers[n, 0, x]]
        assert int(columns[n, y, x]) == line.argmax()
        assert float(powers[n, y, x]) == pytest.approx(float(line.max()) ** 2, rel=1e-5)


def test_gather_shifts_with_the_cube() -> None:
    """Doppler and azimuth wrap around: turning cube and centre together changes only where azimuth column 0 lies."""
    cubes = torch.rand(1, 1, *SHAPE)
    doppler, angle, _ = gather_patches(cubes, windows((0, 10, 1, 0)), SIZE, "light")
    turned = cubes.roll((5, 4), dims=(3, 4))
    other_doppler, other_angle, _ = gather_patches(turned, windows((0, 10, 6, 4)), SIZE, "light")
    torch.testing.assert_close(other_doppler, doppler)
    torch.testing.assert_close(other_angle, angle.roll(5, dims=3))


@pytest.mark.parametrize("view", ["range_doppler", "range_angle"])
@pytest.mark.parametrize("place", [(0, 10, 8, 5), (1, 0, 3, 0), (0, 19, 0, 9)])
def test_paste_is_the_inverse_of_gather(view: str, place: tuple[int, int, int, int]) -> None:
    columns = SHAPE[2] if view == "range_doppler" else SHAPE[1]
    cells = WindowCells.of(windows(place), SIZE, SHAPE)
    maps = torch.rand(2, SHAPE[0], columns) + 0.1
    patch = gather_map(maps, cells, view)  # type: ignore[arg-type]
    pasted = paste_maximum(patch[:, None], cells, 2, SHAPE[0], columns, view)  # type: ignore[arg-type]
    frame, i0, _, k0 = place
    covered = torch.zeros_like(maps, dtype=torch.bool)
    rows = range(max(0, i0 - 4), min(SHAPE[0], i0 + 4))
    span = [(k0 + s) % 10 for s in range(-3, 3)] if view == "range_doppler" else range(columns)
    for row, column in itertools.product(rows, span):
        covered[frame, row, column] = True
    torch.testing.assert_close(pasted[:, 0], torch.where(covered, maps, torch.zeros_like(maps)))
    again = gather_map(pasted[:, 0], cells, view)  # type: ignore[arg-type]
    torch.testing.assert_close(again, patch)


def test_the_largest_of_overlapping_patches_stays() -> None:
    chosen = windows((0, 10, 0, 5), (0, 11, 0, 5))
    cells = WindowCells.of(chosen, SIZE, SHAPE)
    patches = torch.tensor([0.3, 0.7])[:, None, None, None].expand(2, 1, 8, 6)
    pasted = paste_maximum(patches, cells, 1, SHAPE[0], SHAPE[2], "range_doppler")[0, 0]
    assert pasted[:, 5].tolist() == pytest.approx([0.0] * 6 + [0.3] + [0.7] * 8 + [0.0] * 5)


def test_sizes_follow_the_grid() -> None:
    assert WindowSize.for_shape((256, 256, 64)) == WindowSize(48, 32, 32, 6)
    assert WindowSize.for_shape((64, 64, 16)) == WindowSize(12, 8, 8, 2)


@pytest.mark.parametrize("size", [WindowSize(24, 6, 4, 2), WindowSize(8, 12, 4, 2), WindowSize(8, 6, 4, 5)])
def test_windows_larger_than_the_cube_are_refused(size: WindowSize) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        size.check(SHAPE)
