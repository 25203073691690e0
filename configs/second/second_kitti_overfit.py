"""SECOND learning a few frames by heart, without augmentation: does the whole pipeline work? For a CPU."""

_base_ = "second_kitti.py"

model = dict(
    voxel_size=[0.1, 0.1, 0.1],
    # No anchor is ignored: with cells 0.8 m apart, the one that overlaps an object second best often would be, and what
    # nothing trains may outscore the others once these fit.
    classes=[
        dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.5, unmatched_iou=0.5),
        dict(name="Pedestrian", size=[0.8, 0.6, 1.73], bottom=-0.6, matched_iou=0.4, unmatched_iou=0.4),
        dict(name="Cyclist", size=[1.76, 0.6, 1.73], bottom=-0.6, matched_iou=0.4, unmatched_iou=0.4),
    ],
    bev_layers=[3, 3],
    bev_filters=[64, 128],
    bev_upsample_filters=[128, 128],
)
train_dataset = dict(
    split="trainval_reduced",
    points="velodyne_reduced",  # cut to the view of camera 2 already
    replace_empty_frames=False,
    transforms=[
        dict(type="RangeCrop", point_cloud_range=[0.0, -40.0, -3.0, 70.4, 40.0, 1.0]),
        dict(type="PointShuffle"),
    ],
)
val_dataset = dict(split="trainval_reduced", points="velodyne_reduced")
train = dict(epochs=None, steps=600, batch_size=4, workers=1, batch_norm_statistics="re-estimated")
evaluations = [dict(type="KittiAP", every_epochs=1000, classes=["Car", "Pedestrian", "Cyclist"])]
checkpoint = dict(every_epochs=None, every_steps=100, keep=2)
log = dict(every_steps=10)
