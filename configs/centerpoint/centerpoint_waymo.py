"""CenterPoint without residual blocks on every 5th frame of Waymo, as OpenPCDet trains it: 30 epochs, 4 per GPU."""

model = dict(
    type="CenterPoint",
    point_cloud_range=[-75.2, -75.2, -2.0, 75.2, 75.2, 4.0],  # metres, vehicle frame
    voxel_size=[0.1, 0.1, 0.15],  # metres
    in_channels=5,  # x, y, z, intensity (after tanh), elongation
    max_points_per_voxel=5,
    max_voxels_train=150000,
    max_voxels_test=150000,
    classes=["Vehicle", "Pedestrian", "Cyclist"],
    bev_layers=[5, 5],
    bev_filters=[128, 256],
    bev_upsample_filters=[256, 256],
    top_k=500,
    score_threshold=0.1,
    nms_iou=0.7,
    nms_pre_max=4096,
    nms_post_max=500,
)

train_dataset = dict(
    type="Waymo",
    root="data/waymo",
    split="training",
    interval=5,  # 20 % of the frames; 20: 5 %, with 120 epochs; 1: all
    classes=["Vehicle", "Pedestrian", "Cyclist"],
    replace_empty_frames=True,  # a frame without an object is replaced by another random one
    transforms=[
        dict(
            type="GroundTruthSampling",
            objects=dict(Vehicle=15, Pedestrian=10, Cyclist=10),  # objects per scene after topping up
            min_points=5,
        ),
        dict(type="RandomWorldFlip", axes=["x", "y"], probability=0.5),
        dict(type="RandomWorldRotation", angle_range=[-0.78539816, 0.78539816]),  # radians
        dict(type="RandomWorldScaling", scale_range=[0.95, 1.05]),
        dict(type="RangeCrop", point_cloud_range=[-75.2, -75.2, -2.0, 75.2, 75.2, 4.0]),
        dict(type="PointShuffle"),
    ],
)
val_dataset = dict(type="Waymo", root="data/waymo", split="validation")

optimizer = dict(type="AdamW", lr=3e-3, betas=[0.95, 0.99], eps=1e-8, weight_decay=0.01)
schedule = dict(type="OneCycle", start_divisor=10.0, end_divisor=1e4, peak_fraction=0.4, momentum=[0.95, 0.85])
train = dict(epochs=30, batch_size=4, accumulate_steps=1, workers=8, clip_grad_norm=10.0)
evaluations = [dict(type="WaymoAP", every_epochs=5)]
checkpoint = dict(every_epochs=1, keep=3)
log = dict(every_steps=50)
seed = 0
