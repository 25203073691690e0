from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats import KittiObject
from adperception.datasets.kitti import KITTI
from adperception.evaluation.kitti_ap import KittiAP
from adperception.evaluation.kitti_precision import kitti_average_precision
from adperception.evaluation.kitti_results import read_kitti_results, write_kitti_results
from adperception.registry import EVALUATIONS, build
from adperception.structures import Boxes3D, Detections, KittiCalibration

CALIBRATION = KittiCalibration(
    p2=np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]]),
    r0_rect=np.eye(3),
    velo_to_cam=np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]]),
)


class OneCar:
    """Two frames, each with the same car 15 m ahead."""

    def __init__(self, size: tuple[int, int] | None = (375, 1242), labelled: bool = True) -> None:
        self.frame_ids, self.labelled, self.size = ["a", "b"], labelled, size

    def read_objects(self, index: int) -> list[KittiObject]:
        from adperception.datasets.formats import to_kitti_camera

        return to_kitti_camera(CAR, CALIBRATION, (375, 1242))

    def read_calibration(self, index: int) -> KittiCalibration | None:
        return CALIBRATION

    def image_size_of(self, index: int) -> tuple[int, int] | None:
        return self.size


CAR = Boxes3D(np.float32([[15, 2, -0.9, 4, 1.8, 1.6, 0.3]]), ("Car",))


def found(shift: float = 0.0) -> Detections:
    return Detections(Boxes3D(CAR.boxes + np.float32([0, 0, shift, 0, 0, 0, 0]), CAR.names), np.float32([0.7]))


def bound(**options) -> KittiAP:
    evaluation = KittiAP(classes=["Car", "Cyclist"])
    evaluation.bind(OneCar(**options))
    return evaluation


@pytest.mark.real_data
def test_labels_fed_back_on_recorded_frames(real_data: Path, tmp_path: Path) -> None:
    """31 cars are moderate: precision 1 at the first 31 of 41 points, that is 30 of the 40 that R40 averages."""
    dataset = KITTI(real_data / "lidar/kitti", "trainval_reduced", "velodyne_reduced")
    evaluation = build(EVALUATIONS, dict(type="KittiAP"))
    evaluation.bind(dataset)
    predictions = {}
    for index, frame_id in enumerate(dataset.frame_ids):
        boxes = dataset.read(index).boxes
        predictions[frame_id] = Detections(boxes, np.ones(len(boxes), np.float32))
    metrics = evaluation.score(predictions)
    assert len(predictions) == 19
    assert metrics["Car_3d_R40_moderate"] == pytest.approx(75.0)
    assert metrics["Car_best_3d_iou"] == pytest.approx(1, abs=1e-5)

    write_kitti_results(tmp_path, evaluation.kitti_results(predictions))
    results = read_kitti_results(tmp_path, dataset.frame_ids)
    labels = [dataset.read_objects(index) for index in range(len(dataset))]
    from_files = kitti_average_precision(labels, [results[name] for name in dataset.frame_ids])
    assert from_files == pytest.approx(metrics, abs=1e-3, nan_ok=True)


def test_only_the_frames_of_the_predictions_are_evaluated() -> None:
    metrics = bound().score({"b": found()})
    assert metrics["Car_labels"] == 1
    assert metrics["Car_3d_R11_moderate"] == pytest.approx(100 / 11)
    assert bound().score({"a": found(), "b": found()})["Car_3d_R40_moderate"] == pytest.approx(100 / 40)


def test_report_shows_na_and_no_remark_on_a_good_class() -> None:
    evaluation = bound()
    text = evaluation.report(evaluation.score({"a": found(), "b": found()}))
    assert "Car 3d" in text
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert lines["Cyclist 3d"].split()[-3:] == ["n/a"] * 3
    assert "Cyclist: n/a, there is no ground truth of this class." in text
    assert "Mean of Car." in text
    assert "coordinate problem" not in text


def test_report_suspects_coordinates_where_nothing_overlaps() -> None:
    evaluation = bound()
    metrics = evaluation.score({"a": found(shift=5.0)})
    assert metrics["Car_3d_R11_moderate"] == 0
    assert "Car: no prediction above IoU 0.1 overlaps any ground truth: usually a coordinate" in evaluation.report(
        metrics
    )
    loose = evaluation.score({"a": found(shift=0.5)})
    text = evaluation.report(loose)
    assert "coordinate problem" not in text
    assert "AP is 0 although predictions overlap ground truth with IoU up to 0.52" in text
    assert "Car: there is no prediction" in evaluation.report(evaluation.score({"a": Detections.empty()}))


def test_errors_name_frame_and_fix() -> None:
    with pytest.raises(ValueError, match="frame c, which the dataset does not have"):
        bound().score({"c": found()})
    with pytest.raises(ValueError, match=r"frame a has no image size.*image_size=\(height, width\)"):
        bound(size=None).score({"a": found()})
    with pytest.raises(ValueError, match=r"call bind\(dataset\) first"):
        KittiAP().score({"a": found()})
    with pytest.raises(ValueError, match="OneCar has none"):
        bound(labelled=False)
    with pytest.raises(ValueError, match="object has none"):
        KittiAP().bind(object())
    with pytest.raises(ValueError, match=r"classes=\['Bus'\]; choose some of Car"):
        KittiAP(classes=["Bus"])


def test_headline_metrics_exist() -> None:
    evaluation = bound()
    assert set(evaluation.headline) <= set(evaluation.score({"a": found()}))
