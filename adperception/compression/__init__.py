"""Smaller models: channels removed, weights set to zero, eight-bit arithmetic."""
