"""MV-Net on simulated CARRADA in the reduced geometry (64 x 64 x 16 cells), for studies on a CPU."""

_base_ = "mv_net_carrada.py"

model = dict(normalization="train", class_weights="train")
prepare = dict(
    type="SimulateCARRADA",
    root="data/carrada_small",
    frames=3000,
    sequence_frames=50,
    seed=0,
    workers=2,
    radar="carrada_small",
)
train_dataset = dict(
    root="data/carrada_small",
    transforms=[dict(type="RadarMirror", azimuth=0.5, doppler=0.5)],  # that of erase_net_tiny, to compare models only
)
val_dataset = dict(root="data/carrada_small")
optimizer = dict(lr=1e-3)
train = dict(epochs=None, steps=1000, batch_size=6, workers=0, batch_norm_statistics="re-estimated")
evaluations = [dict(type="RadarSegmentation", every_epochs=100)]
checkpoint = dict(every_epochs=None, every_steps=500, keep=1, best=None)
