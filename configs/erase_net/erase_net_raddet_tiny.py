"""ERASE-Net's detector on simulated RADDet in the reduced geometry (64 x 64 x 16 cells): minutes on a CPU."""

_base_ = "erase_net_raddet.py"

model = dict(cube_shape=[64, 64, 16])
prepare = dict(type="SimulateRADDet", root="data/raddet_small", frames=1000, seed=0, workers=2, radar="carrada_small")
train_dataset = dict(root="data/raddet_small", oversample=None)
val_dataset = dict(root="data/raddet_small")
optimizer = dict(lr=1e-3)
train = dict(epochs=None, steps=1500, batch_size=6, workers=0)
evaluations = [
    dict(type="RADDetAP", every_epochs=4, confidence=0.1),
    dict(type="RadarDetection", every_epochs=4),
]
checkpoint = dict(every_epochs=None, every_steps=500, keep=1)
