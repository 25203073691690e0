"""erase_net_tiny, but every pixel decides on its class alone."""

_base_ = "erase_net_tiny.py"

model = dict(class_head=False, foreground_only=False)
