"""SECOND on clouds of your own, labelled in a table. data_tools/folder.py suggest prints what depends on the data."""

model = dict(
    type="SECOND",
    point_cloud_range=[-51.2, -51.2, -3.0, 51.2, 51.2, 3.0],  # metres, LiDAR frame
    voxel_size=[0.1, 0.1, 0.15],  # metres
    in_channels=4,  # x, y, z, intensity
    max_points_per_voxel=5,
    max_voxels_train=40000,
    max_voxels_test=40000,
    classes=[  # anchors: length, width, height and z of the underside in metres
        dict(name="Car", size=[4.4, 1.9, 1.6], bottom=-1.7, matched_iou=0.6, unmatched_iou=0.45),
        dict(name="Pedestrian", size=[0.7, 0.7, 1.7], bottom=-1.7, matched_iou=0.3, unmatched_iou=0.15),
    ],
    bev_layers=[5, 5],
    bev_filters=[128, 256],
    bev_upsample_filters=[256, 256],
    score_threshold=0.1,
    nms_iou=0.01,
    nms_pre_max=4096,
    nms_post_max=500,
)

train_dataset = dict(
    type="Folder",
    root="data/my_drives",
    split="train.txt",  # one frame name per line; None: all files
    labels="labels.csv",
    channels=["x", "y", "z", "intensity"],
    intensity_max=255.0,
    transforms=[
        dict(type="RandomWorldFlip", axes=["x", "y"], probability=0.5),
        dict(type="RandomWorldRotation", angle_range=[-0.78539816, 0.78539816]),  # radians
        dict(type="RandomWorldScaling", scale_range=[0.95, 1.05]),
        dict(type="PointShuffle"),
    ],
)
val_dataset = dict(
    type="Folder",
    root="data/my_drives",
    split="val.txt",
    labels="labels.csv",
    channels=["x", "y", "z", "intensity"],
    intensity_max=255.0,
)

optimizer = dict(type="AdamW", lr=3e-3, betas=[0.95, 0.99], eps=1e-8, weight_decay=0.01)
schedule = dict(type="OneCycle", start_divisor=10.0, end_divisor=1e4, peak_fraction=0.4, momentum=[0.95, 0.85])
train = dict(epochs=80, batch_size=4, accumulate_steps=1, workers=4, clip_grad_norm=10.0)
evaluations = [
    dict(
        type="OnceAP",  # AP by range; works with any labelled dataset
        every_epochs=5,
        rotation="counter_clockwise_yaw",
        classes=[
            dict(name="Car", minimum_iou=0.7, members=["Car"]),
            dict(name="Pedestrian", minimum_iou=0.3, members=["Pedestrian"]),
        ],
    ),
]
checkpoint = dict(every_epochs=1, keep=3)
log = dict(every_steps=50)
seed = 0
