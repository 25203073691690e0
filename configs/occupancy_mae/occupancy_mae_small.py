"""Occupancy-MAE for a CPU: the geometry and training length of ad_l_jepa_small, so that the two compare."""

model = dict(
    type="OccupancyMAE",
    point_cloud_range=[0.0, -25.6, -3.0, 51.2, 25.6, 1.0],  # metres, LiDAR frame
    voxel_size=[0.1, 0.1, 0.1],  # metres
    in_channels=4,  # x, y, z, intensity
    max_points_per_voxel=5,
    max_voxels_train=16000,
    max_voxels_test=40000,
    ring_limits=[30.0, 50.0],  # metres from the sensor
    keep_shares=[0.5, 0.7, 0.7],
    upstream=False,  # True: mask as the released code does, its slips included
)

train_dataset = dict(
    type="KITTI",
    root="data/kitti",
    split="train",
    points="velodyne",
    transforms=[
        dict(type="RandomWorldFlip", axes=["x"], probability=0.5),
        dict(type="RandomWorldRotation", angle_range=[-0.78539816, 0.78539816]),  # radians
        dict(type="RandomWorldScaling", scale_range=[0.95, 1.05]),
        dict(type="PointShuffle"),
    ],
)
val_dataset = dict(type="KITTI", root="data/kitti", split="val", points="velodyne")

optimizer = dict(type="AdamW", lr=3e-3, betas=[0.95, 0.99], eps=1e-8, weight_decay=0.01)
schedule = dict(type="OneCycle", start_divisor=10.0, end_divisor=1e4, peak_fraction=0.4, momentum=[0.95, 0.85])
train = dict(steps=200, batch_size=4, accumulate_steps=1, workers=1, clip_grad_norm=10.0)
evaluations = [dict(type="EncoderEvaluation", every_epochs=1)]
checkpoint = dict(every_steps=50, keep=3, best="val_loss", best_rule="less")
log = dict(every_steps=5)
seed = 0
