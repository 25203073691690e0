"""Radar: segmentation and detection in range-azimuth-Doppler cubes."""
