"""erase_net_tiny, but the probabilities of pixels and of the object class head are multiplied."""

_base_ = "erase_net_tiny.py"

model = dict(class_decision="product", foreground_only=False)
