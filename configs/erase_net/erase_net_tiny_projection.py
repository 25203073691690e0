"""erase_net_tiny, but patches cut from full projections, the averaging that detect-then-segment argues against."""

_base_ = "erase_net_tiny.py"

model = dict(input="projection")
