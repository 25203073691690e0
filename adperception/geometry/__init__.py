"""Voxelization, rotated boxes, points in boxes."""
