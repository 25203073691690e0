"""AD-L-JEPA for a CPU on your own scans: any folder of .bin, .npy, .npz, .pcd, .ply or .las files."""

_base_ = "./ad_l_jepa_small.py"

train_dataset = dict(
    _delete_=True,  # replaces the base's section instead of merging into it
    type="Folder",
    root="data/scans",
    transforms=[
        dict(type="RandomWorldFlip", axes=["x"], probability=0.5),
        dict(type="RandomWorldRotation", angle_range=[-0.78539816, 0.78539816]),  # radians
        dict(type="RandomWorldScaling", scale_range=[0.95, 1.05]),
        dict(type="PointShuffle"),
    ],
)
val_dataset = dict(_delete_=True, type="Folder", root="data/scans")
