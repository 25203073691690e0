"""erase_net_tiny, but windows at the labelled centres: what perfect detection would give."""

_base_ = "erase_net_tiny.py"

model = dict(true_centers=True)
