"""Datasets: one class, one file, the same methods."""
