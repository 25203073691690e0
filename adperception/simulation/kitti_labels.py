"""KITTI calibrations and labels for simulated sweeps: camera, visibility, occlusion and truncation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.kitti_boxes import project_boxes, to_kitti_camera
from adperception.datasets.formats.kitti_label import DONT_CARE, KittiObject
from adperception.simulation.lidar_sensor import Sweep
from adperception.simulation.objects import Placement
from adperception.structures import Boxes3D, KittiCalibration

__all__ = ["IMAGE_SIZES", "draw_calibration", "label_objects", "occlusion_level", "placement_boxes"]

IMAGE_SIZES: tuple[tuple[int, int], ...] = ((375, 1242), (375, 1242), (374, 1238), (370, 1224))
"""Image heights and widths in pixels as KITTI's recording days have them."""

_OCCLUSION_LIMITS = (0.75, 0.40, 0.10)
_FEW_RAYS = 4
_MIN_HEIGHT_PX = {0: 8.0, 1: 22.0, 2: 30.0, 3: 8.0}
_MAX_TRUNCATION = 0.9


def draw_calibration(rng: np.random.Generator) -> tuple[KittiCalibration, tuple[int, int]]:
    """A camera like KITTI's camera 2 and its image size ``(height, width)``, with slight differences from draw to draw.

    The camera sits 0.27 m in front of and 0.08 m below the LiDAR, 0.06 m left of the stereo rig's reference camera.
    """
    height, width = IMAGE_SIZES[int(rng.integers(len(IMAGE_SIZES)))]
    focal = float(rng.normal(715.0, 6.0))
    centre_u, centre_v = width / 2 - float(rng.normal(10.0, 3.0)), height / 2 - float(rng.normal(12.0, 4.0))
    p2 = np.array(
        [
            [focal, 0.0, centre_u, focal * 0.06 + 2.75e-3 * centre_u],
            [0.0, focal, centre_v, 2.75e-3 * centre_v],
            [0.0, 0.0, 1.0, 2.75e-3],
        ]
    )
    axes = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    rotation = _small_rotation(rng.normal(0, 0.008, 3)) @ axes
    velo_to_cam = np.column_stack([rotation, np.array([-0.004, -0.076, -0.272]) + rng.normal(0, 0.003, 3)])
    return KittiCalibration(p2, _small_rotation(rng.normal(0, 0.006, 3)), velo_to_cam), (height, width)


def placement_boxes(placements: tuple[Placement, ...]) -> Boxes3D:
    """The label boxes of placed models that fill the unit box, LiDAR frame."""
    if not placements:
        return Boxes3D.empty()
    rows = [(p.position[0], p.position[1], p.position[2] + p.size[2] / 2, *p.size, _wrap(p.yaw)) for p in placements]
    return Boxes3D(np.array(rows, dtype=np.float32), tuple(str(p.model.label) for p in placements))


def occlusion_level(rays_met: int, rays_alone: int) -> int | None:
    """KITTI's occlusion of an object from the rays that really meet it.

    Args:
        rays_met: rays whose first meeting is this object.
        rays_alone: rays that would meet it if it stood alone.

    Returns:
        0 (at least 75 % seen), 1 (40 %), 2 (10 %), 3 (unknown: fewer than 4 rays aim at it, too few for a share), or
        ``None`` for an object that is hidden so far that KITTI's annotators would not have labelled it.
    """
    if rays_met == 0:
        return None
    if rays_alone < _FEW_RAYS:
        return 3
    share = rays_met / rays_alone
    for level, limit in enumerate(_OCCLUSION_LIMITS):
        if share >= limit:
            return level
    return None


def label_objects(
    placements: tuple[Placement, ...], sweep: Sweep, calibration: KittiCalibration, image_size: tuple[int, int]
) -> list[KittiObject]:
    """Label lines of a frame, nearest first, ``DontCare`` areas last.

    Objects outside the image, or hidden altogether, are left out. Those nearly hidden, without a point, or too small
    (8 pixels high; 22 if partly, 30 if largely occluded) become ``DontCare`` areas, as annotators leave what they
    cannot make out.
    """
    boxes = placement_boxes(placements)
    solid = to_kitti_camera(boxes, calibration, image_size)
    whole = project_boxes(boxes, calibration)
    labels: list[KittiObject] = []
    ignored: list[KittiObject] = []
    for i, item in enumerate(solid):
        left, top, right, bottom = item.box_2d
        if item.location[2] < 0.5 and whole[i, 2] <= whole[i, 0]:
            continue
        clipped = max(right - left, 0.0) * max(bottom - top, 0.0)
        full = float((whole[i, 2] - whole[i, 0]) * (whole[i, 3] - whole[i, 1]))
        if clipped <= 0 or full <= 0:
            continue
        truncation = float(np.clip(1 - clipped / full, 0, 1))
        if truncation > _MAX_TRUNCATION:
            continue
        level = occlusion_level(int(sweep.rays_met[i]), int(sweep.rays_alone[i]))
        if level is None and sweep.rays_met[i] == 0:
            continue
        if level is None or sweep.returns[i] == 0 or bottom - top < _MIN_HEIGHT_PX[level]:
            ignored.append(_dont_care(item.box_2d))
        else:
            labels.append(replace(item, truncation=truncation, occlusion=level))
    labels.sort(key=lambda o: math.hypot(o.location[0], o.location[2]))
    return labels + ignored


def _dont_care(box_2d: tuple[float, float, float, float]) -> KittiObject:
    return KittiObject(DONT_CARE, -1, -1, -10, box_2d, (-1, -1, -1), (-1000, -1000, -1000), -10)


def _small_rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrix of three angles in radians about x, y and z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi
