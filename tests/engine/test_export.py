"""The reference code of docs/export.md runs here, on what onnxruntime computes, against the models' own predictions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adperception.checkpoint.save import write_tensors
from adperception.engine import export
from adperception.engine.export import Comparison, ExportReport, export_dense_part
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.models.base import DetectionModel
from adperception.models.heads.box_coder import DIRECTION_OFFSET
from adperception.registry import MODELS, build
from adperception.structures import LidarBatch, VoxelGrid, Voxels

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

RANGE = [0.0, -6.4, -3.0, 12.8, 6.4, 1.0]
ANCHORS = [
    dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78),
    dict(name="Cyclist", size=[1.76, 0.6, 1.73], bottom=-0.6),
]
SMALL = {
    "voxel_size": [0.1, 0.1, 0.1],
    "in_channels": 4,
    "bev_layers": [1, 1],
    "bev_filters": [16, 16],
    "bev_upsample_filters": [16, 16],
}
CONFIGS = {
    "SECOND": {
        "classes": [c | dict(matched_iou=0.6, unmatched_iou=0.4) for c in ANCHORS],
        "nms_iou": 0.01,
        "direction_offset": -1.5,
    },
    "PVRCNN": {"classes": [c | dict(matched_iou=0.6, unmatched_iou=0.4) for c in ANCHORS], "keypoints": 16},
    "CenterPoint": {"classes": ["Car", "Cyclist"], "nms_iou": 0.7, "top_k": 300},
}


def detector(kind: str) -> DetectionModel:
    """With scores around one half, so that there is something to decode and to suppress."""
    torch.manual_seed(2)
    model: DetectionModel = build(MODELS, {"type": kind, "point_cloud_range": RANGE, **SMALL, **CONFIGS[kind]})
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "dense_head" in name and "bias" in name and tensor.shape[0] < 64:
                tensor.normal_(std=0.3)
            elif "dense_head" in name and tensor.dim() == 4:
                tensor.mul_(2)
    return model.eval()


FRAME = LidarBatch(("one",), Voxels(torch.ones(1, 4), torch.zeros(1, 4, dtype=torch.int32), 1), (torch.ones(1, 4),))


@pytest.fixture(scope="module")
def reference(repository: Path) -> dict[str, Callable[..., Any]]:
    """The functions of the code block in docs/export.md."""
    (block,) = re.findall(r"```python\n(.*?)```", (repository / "docs/export.md").read_text(), re.DOTALL)
    functions: dict[str, Any] = {}
    exec(compile(block, "docs/export.md", "exec"), functions)
    return functions


@pytest.mark.parametrize("kind", ["SECOND", "CenterPoint"])
def test_exported_file_and_documented_decoding_give_the_models_predictions(
    kind: str, tmp_path: Path, reference: dict[str, Callable[..., Any]]
) -> None:
    model = detector(kind).train()
    report = export_dense_part(model, tmp_path / "dense.onnx")
    assert model.training
    model.eval()
    assert report.inputs == {"bev_BCHW": (1, 256, 16, 16)}
    assert str(report).startswith(
        f'export: "{kind.lower()}" contains 12 sparse convolutions, which ONNX cannot represent. Exported the dense '
        f"part (BEV backbone + head) to {tmp_path / 'dense.onnx'}; input is bev_BCHW (1, 256, 16, 16). See "
        "docs/export.md#sparse."
    )
    assert all(found.difference < 1e-4 * found.largest for found in report.outputs.values())

    # An untrained encoder's map is nearly constant; a varied one decides every comparison of scores.
    bev = torch.randn(1, 256, 16, 16).relu()
    model.backbone_3d.forward = lambda voxels, planned=None: bev  # type: ignore[method-assign, assignment]
    session = onnxruntime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    assert [x.name for x in session.get_inputs()] == ["bev_BCHW"]
    outputs = dict(zip(report.outputs, session.run(None, {"bev_BCHW": bev.numpy()}), strict=True))
    first = {name: value[0] for name, value in outputs.items()}
    if kind == "SECOND":
        sizes = [(*c["size"], c["bottom"]) for c in ANCHORS]
        anchors = reference["anchors"](sizes, (0, -6.4, 12.8, 6.4), 16, 16)
        found = reference["decode_anchors"](**first, anchors=anchors, direction_offset=-1.5)
        default = inspect.signature(reference["decode_anchors"]).parameters["direction_offset"].default
        assert default == DIRECTION_OFFSET
    else:
        found = reference["decode_centres"](**first, limits=np.array(RANGE), cell=(0.8, 0.8), top_k=300)
    boxes, scores, labels = reference["suppress"](*found, iou=CONFIGS[kind]["nms_iou"])

    (expected,) = model.predict(FRAME)
    assert len(expected) > 5
    assert [model.class_names[label] for label in labels] == list(expected.boxes.names)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(boxes, expected.boxes.boxes, atol=1e-3)


def test_first_stage_of_pv_rcnn(tmp_path: Path) -> None:
    report = export_dense_part(detector("PVRCNN"), tmp_path / "dense.onnx")
    assert set(report.outputs) == {"classes", "boxes", "directions"}
    assert "contains 12 sparse convolutions" in str(report)
    assert "not in the file: pfe, point_head, roi_head. They work on points" in str(report)


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda part, inputs, path, **options: Path(path).touch())
    found = {"classes": Comparison((1, 2), 0.3, 2.0, 1.0, False), "boxes": Comparison((1, 7), 1e-7, 1.0, 1.0, False)}
    monkeypatch.setattr(export, "_compare", lambda *_: found)
    message = (
        r"other values than torch\. classes: onnxruntime differs .* 0\.3 \(largest value 2\)\. No file was written"
    )
    with pytest.raises(ValueError, match=message):
        export_dense_part(detector("SECOND"), tmp_path / "dense.onnx")
    assert list(tmp_path.iterdir()) == []


def test_models_without_a_dense_part(tmp_path: Path) -> None:
    encoder = VoxelBackBone8x(4, VoxelGrid((0.0, 0.0, 0.0, 1.6, 1.6, 4.0), (0.1, 0.1, 0.1)))
    with pytest.raises(ValueError, match="VoxelBackBone8x has no dense part"):
        export_dense_part(nn.Sequential(encoder)[0], tmp_path / "dense.onnx")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'pip install "adperception\[export\]"'):
        export_dense_part(detector("SECOND"), tmp_path / "dense.onnx")


def test_tool(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Without the slow part, which the tests above run."""
    config = {"type": "SECOND", "point_cloud_range": RANGE, **SMALL, **CONFIGS["SECOND"]}
    write_tensors(tmp_path / "w.safetensors", detector("SECOND").state_dict(), {"model_config": config})
    report = ExportReport(tmp_path / "w_dense.onnx", {"bev_BCHW": (1, 2, 3, 4)}, {}, 1, "what it is")
    calls = []
    monkeypatch.setattr(export, "export_dense_part", lambda *arguments: calls.append(arguments) or report)
    functions: dict[str, Any] = {"__name__": "export_tool"}
    exec((repository / "tools/export.py").read_text(), functions)
    assert functions["main"](["--weights", str(tmp_path / "w.safetensors")]) == 0
    assert calls[0][1] == tmp_path / "w_dense.onnx"
    assert capsys.readouterr().out == "export: what it is\n"
    assert functions["main"](["--weights", str(tmp_path / "gone.safetensors")]) == 1
    assert "there is no checkpoint here" in capsys.readouterr().err
