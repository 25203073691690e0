"""Losses: one loss, one file."""
