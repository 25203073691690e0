"""AD-L-JEPA on KITTI as the released code trains it: detection augmentation, so that labels take part."""

_base_ = "./ad_l_jepa_kitti.py"

train_dataset = dict(
    classes=["Car", "Pedestrian", "Cyclist"],
    replace_empty_frames=True,  # a frame without an object is replaced by another random one
    transforms=[
        dict(
            type="GroundTruthSampling",
            objects=dict(Car=20, Pedestrian=15, Cyclist=15),  # objects per scene after topping up
            min_points=5,
        ),
        dict(type="RandomWorldFlip", axes=["x"], probability=0.5),
        dict(type="RandomWorldRotation", angle_range=[-0.78539816, 0.78539816]),  # radians
        dict(type="RandomWorldScaling", scale_range=[0.95, 1.05]),
        dict(type="RangeCrop", point_cloud_range=[0.0, -40.0, -3.0, 70.4, 40.0, 1.0]),
        dict(type="PointShuffle"),
    ],
)
train = dict(batch_size=4)  # per process; 4 processes make 16
