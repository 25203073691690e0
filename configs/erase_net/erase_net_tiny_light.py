"""erase_net_tiny, but light patches: mean and maximum of the gated columns."""

_base_ = "erase_net_tiny.py"

model = dict(input="light")
