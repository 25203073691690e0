"""What happens to a frame between disk and model."""
