"""Quickstart: simulate a radar at a road, train a small ERASE-Net on it on a CPU, print and draw what it finds."""

_base_ = "./erase_net/erase_net_carrada.py"

model = dict(
    cube_shape=[64, 64, 16],  # a quarter of CARRADA's resolution on each axis
    input="channels",
    phases=[0.0, 0.6, 0.4],
    normalization="train",
    window=dict(rows=12, dopplers=8, azimuth_gate=8, doppler_gate=2),
)
prepare = dict(
    type="SimulateCARRADA",
    root="data/quickstart_radar",
    frames=2000,
    splits=dict(Train=0.8, Validation=0.2),
    seed=0,
    workers=2,
    radar="carrada_small",
)
train_dataset = dict(root="data/quickstart_radar")
val_dataset = dict(root="data/quickstart_radar")
optimizer = dict(lr=1e-3)
train = dict(epochs=None, steps=1000, batch_size=8, workers=1, batch_norm_statistics="re-estimated")
evaluations = [
    dict(type="RadarSegmentation", every_epochs=1000),
    dict(type="RadarDetection", every_epochs=1000, range_cells=2.0, doppler_cells=1.0),  # 1.6 m, 1.7 m/s
]
checkpoint = dict(every_epochs=None, every_steps=250, keep=1)
