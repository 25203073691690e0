"""SECOND for a CPU, at the geometry of ad_l_jepa_small, whose encoder fits: three classes, a narrow 2D network."""

model = dict(
    type="SECOND",
    point_cloud_range=[0.0, -25.6, -3.0, 51.2, 25.6, 1.0],  # metres, LiDAR frame
    voxel_size=[0.1, 0.1, 0.1],  # metres
    in_channels=4,  # x, y, z, intensity
    max_points_per_voxel=5,
    max_voxels_train=16000,
    max_voxels_test=40000,
    classes=[  # anchors: length, width, height and z of the underside in metres
        dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.6, unmatched_iou=0.45),
        dict(name="Pedestrian", size=[0.8, 0.6, 1.73], bottom=-0.6, matched_iou=0.5, unmatched_iou=0.35),
        dict(name="Cyclist", size=[1.76, 0.6, 1.73], bottom=-0.6, matched_iou=0.5, unmatched_iou=0.35),
    ],
    bev_layers=[2, 2],
    bev_filters=[64, 64],
    bev_upsample_filters=[64, 64],
    score_threshold=0.1,
    nms_iou=0.01,
    nms_pre_max=4096,
    nms_post_max=500,
)

train_dataset = dict(
    type="KITTI",
    root="data/kitti",
    split="train",
    points="velodyne",  # whole sweeps, cut to the view of camera 2, where the labels are
    crop_to_image=True,
    classes=["Car", "Pedestrian", "Cyclist"],
    transforms=[
        dict(type="RandomWorldFlip", axes=["x"], probability=0.5),
        dict(type="RandomWorldRotation", angle_range=[-0.78539816, 0.78539816]),  # radians
        dict(type="RandomWorldScaling", scale_range=[0.95, 1.05]),
        dict(type="RangeCrop", point_cloud_range=[0.0, -25.6, -3.0, 51.2, 25.6, 1.0]),
        dict(type="PointShuffle"),
    ],
)
val_dataset = dict(type="KITTI", root="data/kitti", split="val", points="velodyne", crop_to_image=True)

optimizer = dict(type="AdamW", lr=3e-3, betas=[0.95, 0.99], eps=1e-8, weight_decay=0.01)
schedule = dict(type="OneCycle", start_divisor=10.0, end_divisor=1e4, peak_fraction=0.4, momentum=[0.95, 0.85])
train = dict(
    steps=400, batch_size=4, accumulate_steps=1, workers=1, clip_grad_norm=10.0, batch_norm_statistics="re-estimated"
)
evaluations = [dict(type="KittiAP", every_epochs=5, classes=["Car", "Pedestrian", "Cyclist"])]
checkpoint = dict(every_steps=100, keep=3, best="mean_3d_R40_moderate", best_rule="greater")
log = dict(every_steps=10)
seed = 0
