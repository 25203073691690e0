"""PKCIn-Net on CARRADA by the MVRSS protocol: five frames, 300 epochs, best mean precision on validation."""

model = dict(
    type="PKCInNet",
    classes=["pedestrian", "cyclist", "car"],
    normalization="carrada_tvt",
    class_weights="carrada",
    dice_weight=10.0,
    coherence_weight=5.0,
    guard_cells=1,
)

train_dataset = dict(
    type="CARRADA",
    root="data/carrada",
    split="Train",
    moments=5,
    load=["views"],
    transforms=[dict(type="MVRSSFlip", probability=0.5)],
)
val_dataset = dict(type="CARRADA", root="data/carrada", split="Validation", moments=5, load=["views"])

optimizer = dict(type="Adam", lr=1e-4)
schedule = dict(type="StepDecay", factor=0.9, stages=15)  # times 0.9 every 20 epochs
train = dict(epochs=300, batch_size=6, workers=8)
evaluations = [dict(type="RadarSegmentation", every_epochs=1)]  # MVRSS: every 2,000 steps
checkpoint = dict(every_epochs=1, keep=3, best="mvrss_precision", best_rule="greater")
log = dict(every_steps=50)
seed = 42
