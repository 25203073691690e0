"""Saving, loading and converting weights: safetensors and JSON, never a pickle."""
