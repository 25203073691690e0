"""AD-L-JEPA at the Waymo geometry: 0.1 m voxels over 150 x 150 m, five channels, all LiDARs, 20 % of the frames."""

model = dict(
    type="ADLJEPA",
    point_cloud_range=[-75.2, -75.2, -2.0, 75.2, 75.2, 4.0],  # metres, LiDAR frame
    voxel_size=[0.1, 0.1, 0.15],  # metres
    in_channels=5,  # x, y, z, intensity (after tanh), elongation
    max_points_per_voxel=5,
    max_voxels_train=150000,
    max_voxels_test=150000,
    mask_ratio=0.5,
    mask_per="batch",
    token_mode="frozen",
    prediction_weight=1.0,  # alpha of the method
    variance_weight=10.0,  # beta of the method: 1 on KITTI, 10 on Waymo
)

train_dataset = dict(
    type="Waymo",
    root="data/waymo",  # Waymo Open Dataset v2, Parquet
    split="training",
    interval=5,  # every 5th frame: the 20 % that most published figures use
    labels=False,  # pre-training needs none
    transforms=[
        dict(type="RandomWorldFlip", axes=["x", "y"], probability=0.5),
        dict(type="RandomWorldRotation", angle_range=[-0.78539816, 0.78539816]),  # radians
        dict(type="RandomWorldScaling", scale_range=[0.95, 1.05]),
        dict(type="PointShuffle"),
    ],
)
val_dataset = dict(type="Waymo", root="data/waymo", split="validation", interval=20)

optimizer = dict(type="AdamW", lr=3e-4, betas=[0.95, 0.99], eps=1e-8, weight_decay=0.01)
schedule = dict(type="OneCycle", start_divisor=10.0, end_divisor=1e4, peak_fraction=0.4, momentum=[0.95, 0.85])
train = dict(epochs=30, batch_size=16, accumulate_steps=1, workers=8, clip_grad_norm=10.0)
evaluations = [dict(type="RepresentationEvaluation", every_epochs=1)]
checkpoint = dict(every_epochs=1, keep=3, best="val_loss", best_rule="less")
log = dict(every_steps=50)
seed = 0
