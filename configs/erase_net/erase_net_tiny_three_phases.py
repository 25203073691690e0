"""erase_net_tiny, but the three phases of the fact sheet, one network at a time in the first two."""

_base_ = "erase_net_tiny.py"

model = dict(phases=[0.3, 0.4, 0.3], pause_detector=True)
