"""erase_net_tiny, but the range-angle network does not see the range-Doppler mask."""

_base_ = "erase_net_tiny.py"

model = dict(lift=False)
