"""Quickstart: simulate street scenes, pre-train a small AD-L-JEPA on them on a CPU, print what was learnt."""

_base_ = "./ad_l_jepa/ad_l_jepa_small.py"

prepare = dict(type="SimulateKitti", root="data/quickstart", frames=160, seed=0, workers=2)
train_dataset = dict(root="data/quickstart")
val_dataset = dict(root="data/quickstart")
train = dict(steps=120, workers=1)
