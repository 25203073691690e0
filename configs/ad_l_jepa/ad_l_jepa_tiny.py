"""The pre-training of ad_l_jepa_small for studies on a CPU, at the geometry of second_tiny."""

_base_ = "ad_l_jepa_small.py"

model = dict(point_cloud_range=[0.0, -12.8, -3.0, 25.6, 12.8, 1.0])
prepare = dict(type="SimulateKitti", root="data/study", frames=400, seed=0, workers=2)
train_dataset = dict(root="data/study")
val_dataset = dict(root="data/study")
train = dict(steps=200)
checkpoint = dict(every_steps=100, keep=1)
