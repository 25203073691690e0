"""CenterPoint with residual blocks in its 3D encoder, OpenPCDet's usual one for Waymo; nothing pre-trains it here."""

_base_ = "centerpoint_waymo.py"

model = dict(backbone="VoxelResBackBone8x")
