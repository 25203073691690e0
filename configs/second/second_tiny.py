"""SECOND for studies on a CPU: 25.6 x 25.6 m in front of the car, half the step time of second_small."""

_base_ = "second_small.py"

model = dict(point_cloud_range=[0.0, -12.8, -3.0, 25.6, 12.8, 1.0])
prepare = dict(type="SimulateKitti", root="data/study", frames=400, seed=0, workers=2)
train_dataset = dict(
    root="data/study",
    transforms=[
        dict(type="RandomWorldFlip", axes=["x"], probability=0.5),
        dict(type="RandomWorldRotation", angle_range=[-0.78539816, 0.78539816]),  # radians
        dict(type="RandomWorldScaling", scale_range=[0.95, 1.05]),
        dict(type="RangeCrop", point_cloud_range=[0.0, -12.8, -3.0, 25.6, 12.8, 1.0]),
        dict(type="PointShuffle"),
    ],
)
val_dataset = dict(root="data/study")
train = dict(steps=300, batch_size=2, batch_norm_statistics="re-estimated")
evaluations = [
    dict(
        type="KittiAP",
        every_epochs=100,
        classes=["Car", "Pedestrian", "Cyclist"],
        point_cloud_range=[0.0, -12.8, -3.0, 25.6, 12.8, 1.0],
    ),
]
checkpoint = dict(every_steps=100, keep=1)
