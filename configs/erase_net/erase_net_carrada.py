"""ERASE-Net (our reconstruction) on CARRADA: T = 5, small networks, light patches, 300 epochs as MVRSS trains."""

model = dict(
    type="ERASENet",
    classes=["pedestrian", "cyclist", "car"],
    moments=5,
    cube_shape=[256, 256, 64],  # range, azimuth, Doppler
    size="small",
    input="light",
    lift=True,
    constant_channels=True,
    class_head=True,
    class_decision="object",
    normalization="carrada_tvt",
    window=dict(rows=48, dopplers=32, azimuth_gate=32, doppler_gate=6),  # cells
    candidates=4,
    score_threshold=0.3,
    phases=[0.3, 0.4, 0.3],  # detector alone; windows around true centres; windows of the detector
    class_weights=[1.0, 3.0, 3.0, 3.0],
    foreground_only=True,
    balance_objects=True,
    label_smoothing=0.1,
)

train_dataset = dict(
    type="CARRADA",
    root="data/carrada",
    split="Train",
    moments=5,
    load=["cubes"],
    oversample=dict(cyclist=2),
    transforms=[dict(type="RadarMirror", azimuth=0.5, doppler=0.5)],
)
val_dataset = dict(type="CARRADA", root="data/carrada", split="Validation", moments=5, load=["cubes"])

optimizer = dict(type="Adam", lr=1e-4)
schedule = dict(type="StepDecay", factor=0.9, stages=15)
train = dict(epochs=300, batch_size=6, workers=8)
evaluations = [dict(type="RadarSegmentation", every_epochs=10), dict(type="RadarDetection", every_epochs=10)]
checkpoint = dict(every_epochs=5, keep=3)
log = dict(every_steps=50)
seed = 0
