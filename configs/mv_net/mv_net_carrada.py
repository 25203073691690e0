"""MV-Net on CARRADA by the MVRSS protocol: three frames, 300 epochs, best mean precision on validation."""

model = dict(
    type="MVNet",
    moments=3,
    classes=["pedestrian", "cyclist", "car"],
    normalization="carrada_tvt",
    class_weights="carrada",
    dice_weight=10.0,
    coherence_weight=0.0,
)

train_dataset = dict(
    type="CARRADA",
    root="data/carrada",
    split="Train",
    moments=3,
    load=["views"],
    transforms=[dict(type="MVRSSFlip", probability=0.5)],
)
val_dataset = dict(type="CARRADA", root="data/carrada", split="Validation", moments=3, load=["views"])

optimizer = dict(type="Adam", lr=1e-4)
schedule = dict(type="StepDecay", factor=0.9, stages=15)  # times 0.9 every 20 epochs
train = dict(epochs=300, batch_size=15, workers=8)
evaluations = [dict(type="RadarSegmentation", every_epochs=1)]  # MVRSS: every 2,000 steps
checkpoint = dict(every_epochs=1, keep=3, best="mvrss_precision", best_rule="greater")
log = dict(every_steps=50)
seed = 42
