"""erase_net_tiny, but patches without range, Doppler, azimuth and scores."""

_base_ = "erase_net_tiny.py"

model = dict(constant_channels=False)
