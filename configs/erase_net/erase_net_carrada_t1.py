"""ERASE-Net on CARRADA with the labelled frame alone (T = 1), scored on the same frames."""

_base_ = "erase_net_carrada.py"

model = dict(moments=1)
train_dataset = dict(moments=1)
val_dataset = dict(moments=1)
