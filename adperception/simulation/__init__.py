"""Simulators of LiDAR scenes and sensors."""
