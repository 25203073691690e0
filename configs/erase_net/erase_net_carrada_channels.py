"""ERASE-Net on CARRADA, small networks with the third axis of the cube as channels."""

_base_ = "erase_net_carrada.py"

model = dict(input="channels")
