"""ERASE-Net's detector (our reconstruction) on RADDet: single frames, six classes, no masks, hence no segmenter."""

model = dict(
    type="ERASENet",
    classes=["person", "bicycle", "car", "motorcycle", "bus", "truck"],
    moments=1,
    cube_shape=[256, 256, 64],  # range, azimuth, Doppler
    size="small",
    normalization="train",
    candidates=30,  # the most boxes in a frame of RADDet
    score_threshold=0.1,
    phases=[1.0, 0.0, 0.0],
)

train_dataset = dict(
    type="RADDet",
    root="data/raddet",
    split="train",
    oversample=dict(motorcycle=4, bus=4, bicycle=2),
    transforms=[dict(type="RadarMirror", azimuth=0.5, doppler=0.5)],
)
val_dataset = dict(type="RADDet", root="data/raddet", split="validation")

optimizer = dict(type="Adam", lr=1e-4)
schedule = dict(type="StepDecay", factor=0.9, stages=15)
train = dict(epochs=60, batch_size=6, workers=8)
evaluations = [
    # RADDet counts detections above 0.5; a heat map's scores are lower, and more than its own threshold is not needed.
    dict(type="RADDetAP", every_epochs=5, confidence=0.1),
    dict(type="RadarDetection", every_epochs=5),
]
checkpoint = dict(every_epochs=5, keep=3)
log = dict(every_steps=50)
seed = 0
