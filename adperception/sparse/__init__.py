"""Sparse 3D convolutions."""
