"""Models: read top to bottom, typed inputs and outputs."""
