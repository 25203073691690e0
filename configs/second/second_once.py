"""SECOND on ONCE, five classes, as OpenPCDet trains it: 80 epochs, 4 frames per GPU."""

model = dict(
    type="SECOND",
    point_cloud_range=[-75.2, -75.2, -5.0, 75.2, 75.2, 3.0],  # metres, LiDAR frame
    voxel_size=[0.1, 0.1, 0.2],  # metres
    in_channels=4,  # x, y, z, intensity
    max_points_per_voxel=5,
    max_voxels_train=60000,
    max_voxels_test=60000,
    classes=[  # anchors: length, width, height and z of the underside in metres
        dict(name="Car", size=[4.38, 1.87, 1.59], bottom=-1.71, matched_iou=0.6, unmatched_iou=0.45),
        dict(name="Bus", size=[11.11, 2.88, 3.41], bottom=-1.74, matched_iou=0.55, unmatched_iou=0.4),
        dict(name="Truck", size=[7.52, 2.50, 2.62], bottom=-1.55, matched_iou=0.55, unmatched_iou=0.4),
        dict(name="Pedestrian", size=[0.75, 0.76, 1.69], bottom=-1.62, matched_iou=0.3, unmatched_iou=0.15),
        dict(name="Cyclist", size=[2.18, 0.79, 1.43], bottom=-1.65, matched_iou=0.5, unmatched_iou=0.35),
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
    type="ONCE",
    root="data/once",
    split="train",
    classes=["Car", "Bus", "Truck", "Pedestrian", "Cyclist"],
    replace_empty_frames=True,  # a frame without an object is replaced by another random one
    transforms=[
        dict(
            type="GroundTruthSampling",
            objects=dict(Car=1, Bus=4, Truck=3, Pedestrian=2, Cyclist=2),  # objects per scene after topping up
            min_points=5,
        ),
        dict(type="RandomWorldFlip", axes=["x", "y"], probability=0.5),
        dict(type="RandomWorldRotation", angle_range=[-0.78539816, 0.78539816]),  # radians
        dict(type="RandomWorldScaling", scale_range=[0.95, 1.05]),
        dict(type="RangeCrop", point_cloud_range=[-75.2, -75.2, -5.0, 75.2, 75.2, 3.0]),
        dict(type="PointShuffle"),
    ],
)
val_dataset = dict(type="ONCE", root="data/once", split="val")

optimizer = dict(type="AdamW", lr=3e-3, betas=[0.95, 0.99], eps=1e-8, weight_decay=0.01)
schedule = dict(type="OneCycle", start_divisor=10.0, end_divisor=1e4, peak_fraction=0.4, momentum=[0.95, 0.85])
train = dict(epochs=80, batch_size=4, accumulate_steps=1, workers=8, clip_grad_norm=10.0)
evaluations = [dict(type="OnceAP", every_epochs=5)]
checkpoint = dict(every_epochs=1, keep=3)
log = dict(every_steps=50)
seed = 0
