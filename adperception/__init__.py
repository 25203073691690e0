"""Perception models for autonomous-driving sensors."""

__version__ = "0.1.0"
