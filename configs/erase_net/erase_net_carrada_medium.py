"""ERASE-Net on CARRADA, medium networks: the largest that stay within a twentieth of TMVA-Net."""

_base_ = "erase_net_carrada.py"

model = dict(size="medium")
