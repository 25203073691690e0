"""Readers and writers of file formats: no dataset logic, no randomness."""

from adperception.datasets.formats.box_conventions import from_mmdet3d_v1, to_mmdet3d_v1, yaw_from_quaternion
from adperception.datasets.formats.image_size import read_image_shapes, read_image_size, write_image_shapes
from adperception.datasets.formats.kitti_boxes import from_kitti_camera, project_boxes, to_kitti_camera
from adperception.datasets.formats.kitti_calib import read_calibration, write_calibration
from adperception.datasets.formats.kitti_label import DONT_CARE, KittiObject, read_labels, write_labels
from adperception.datasets.formats.kitti_plane import read_road_plane
from adperception.datasets.formats.point_files import (
    POINT_SUFFIXES,
    drop_non_finite,
    read_points,
    read_points_with_notes,
    write_bin,
)

__all__ = [
    "DONT_CARE",
    "POINT_SUFFIXES",
    "KittiObject",
    "drop_non_finite",
    "from_kitti_camera",
    "from_mmdet3d_v1",
    "project_boxes",
    "read_calibration",
    "read_image_shapes",
    "read_image_size",
    "read_labels",
    "read_points",
    "read_points_with_notes",
    "read_road_plane",
    "to_kitti_camera",
    "to_mmdet3d_v1",
    "write_bin",
    "write_calibration",
    "write_image_shapes",
    "write_labels",
    "yaw_from_quaternion",
]
