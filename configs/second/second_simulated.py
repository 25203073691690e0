"""SECOND trained on simulated frames only, evaluated on recorded ones; coarse voxels and a narrow network for a CPU."""

_base_ = "second_kitti.py"

model = dict(
    voxel_size=[0.1, 0.1, 0.1],
    bev_layers=[3, 3],
    bev_filters=[64, 128],
    bev_upsample_filters=[128, 128],
)
prepare = dict(type="SimulateKitti", root="data/simulated_kitti", frames=400, seed=0, workers=2)
train_dataset = dict(
    root="data/simulated_kitti",
    replace_empty_frames=False,
    transforms=[
        dict(type="RandomWorldFlip", axes=["x"], probability=0.5),
        dict(type="RandomWorldRotation", angle_range=[-0.78539816, 0.78539816]),  # radians
        dict(type="RandomWorldScaling", scale_range=[0.95, 1.05]),
        dict(type="RangeCrop", point_cloud_range=[0.0, -40.0, -3.0, 70.4, 40.0, 1.0]),
        dict(type="PointShuffle"),
    ],
)
val_dataset = dict(split="trainval_reduced", points="velodyne_reduced")
train = dict(epochs=None, steps=500, batch_size=4, workers=1, batch_norm_statistics="re-estimated")
evaluations = [dict(type="KittiAP", every_epochs=100, classes=["Car", "Pedestrian", "Cyclist"])]
checkpoint = dict(every_epochs=None, every_steps=50, keep=2)
log = dict(every_steps=10)
