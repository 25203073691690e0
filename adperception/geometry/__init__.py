"""Geometry: voxelization, sampling of points, points in boxes, rotated boxes and their suppression."""

from adperception.geometry.nms import rotated_nms
from adperception.geometry.point_sampling import ball_query, farthest_point_sample, farthest_point_sample_frames
from adperception.geometry.points_in_boxes import count_points_in_boxes, points_in_boxes
from adperception.geometry.range_coverage import RangeCoverage, check_range_coverage, in_range
from adperception.geometry.rotated_boxes import bev_collisions
from adperception.geometry.rotated_iou import (
    rotated_iou_3d,
    rotated_iou_3d_pairs,
    rotated_iou_bev,
    rotated_iou_bev_pairs,
)
from adperception.geometry.voxelization import VoxelCollate, Voxelizer, voxelize_by_loop

__all__ = [
    "RangeCoverage",
    "VoxelCollate",
    "Voxelizer",
    "ball_query",
    "bev_collisions",
    "check_range_coverage",
    "count_points_in_boxes",
    "farthest_point_sample",
    "farthest_point_sample_frames",
    "in_range",
    "points_in_boxes",
    "rotated_iou_3d",
    "rotated_iou_3d_pairs",
    "rotated_iou_bev",
    "rotated_iou_bev_pairs",
    "rotated_nms",
    "voxelize_by_loop",
]
