"""erase_net_tiny, but the labelled frame alone (T = 1)."""

_base_ = "erase_net_tiny.py"

model = dict(moments=1)
train_dataset = dict(moments=1)
val_dataset = dict(moments=1)
