"""erase_net_tiny, but medium networks."""

_base_ = "erase_net_tiny.py"

model = dict(size="medium")
