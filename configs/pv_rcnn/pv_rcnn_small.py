"""PV-RCNN for a CPU, at the geometry of ad_l_jepa_small, whose encoder fits: a narrow 2D network, fewer keypoints."""

_base_ = "../second/second_small.py"

model = dict(
    type="PVRCNN",
    keypoints=512,
    rois_per_frame=64,
    roi_grid_size=3,
    nms_iou=0.1,
)
train = dict(batch_size=2, batch_norm_statistics="re-estimated")
