"""ERASE-Net on simulated CARRADA in the reduced geometry (64 x 64 x 16 cells), for studies on a CPU."""

model = dict(
    type="ERASENet",
    classes=["pedestrian", "cyclist", "car"],
    moments=5,
    cube_shape=[64, 64, 16],  # range, azimuth, Doppler
    size="small",
    input="channels",  # with 16 Doppler columns slow objects are next to static clutter: keep the columns apart
    lift=True,
    constant_channels=True,
    class_head=True,
    class_decision="object",
    normalization="train",
    window=dict(rows=12, dopplers=8, azimuth_gate=8, doppler_gate=2),  # cells
    candidates=4,
    score_threshold=0.3,
    phases=[0.0, 0.6, 0.4],  # detector alone; windows around true centres; windows of the detector
    class_weights=[1.0, 3.0, 3.0, 3.0],
    foreground_only=True,
    balance_objects=True,
    label_smoothing=0.1,
)

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
    type="CARRADA",
    root="data/radar_study",
    split="Train",
    moments=5,
    load=["cubes"],
    transforms=[dict(type="RadarMirror", azimuth=0.5, doppler=0.5)],
)
val_dataset = dict(type="CARRADA", root="data/radar_study", split="Validation", moments=5, load=["cubes"])

optimizer = dict(type="Adam", lr=3e-3)
schedule = dict(type="StepDecay", factor=0.9, stages=15)
train = dict(steps=1000, batch_size=6, workers=0, batch_norm_statistics="re-estimated")
evaluations = [dict(type="RadarSegmentation", every_epochs=100), dict(type="RadarDetection", every_epochs=100)]
checkpoint = dict(every_steps=500, keep=1)
log = dict(every_steps=50)
seed = 0
