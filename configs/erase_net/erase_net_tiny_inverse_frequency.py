"""erase_net_tiny, but cross-entropy weighted by inverse class frequencies in the windows."""

_base_ = "erase_net_tiny.py"

model = dict(class_weights="windows")
