"""PKCIn-Net on simulated CARRADA in the reduced geometry (64 x 64 x 16 cells), for studies on a CPU."""

_base_ = "pkcin_net_carrada.py"

model = dict(normalization="train", class_weights="train")
prepare = dict(
    type="SimulateCARRADA",
    root="data/radar_study",
    frames=3200,  # sequences of 20, whose first four frames only serve as predecessors: 1600, 384 and 576 samples
    splits=dict(Train=0.625, Validation=0.15, Test=0.225),
    seed=0,
    workers=2,
    radar="carrada_small",
)
train_dataset = dict(
    root="data/radar_study",
    transforms=[dict(type="RadarMirror", azimuth=0.5, doppler=0.5)],  # as every model there
)
val_dataset = dict(root="data/radar_study")
optimizer = dict(lr=1e-3)
train = dict(epochs=None, steps=1000, batch_size=6, workers=0, batch_norm_statistics="re-estimated")
evaluations = [dict(type="RadarSegmentation", every_epochs=100)]
checkpoint = dict(every_epochs=None, every_steps=500, keep=1, best=None)
