"""A small comparison of toy radar models."""

from __future__ import annotations

from pathlib import Path

from adperception.config import load_config
from adperception.engine.model_comparison_plan import Comparison
from adperception.registry import DATASETS

from toy_radar import ToyRadarFrames

SPLITS = {"Train": (12, 0), "Validation": (6, 1), "Test": (8, 2)}
CONFIG = """
model = dict(type="ToyRadarModel", moments={moments}, width={width})
train_dataset = dict(type="ToySplitFrames", split="Train")
val_dataset = dict(type="ToySplitFrames", split="Validation")
optimizer = dict(type="Adam", lr=0.05, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8)
train = dict(epochs=8, batch_size=3, workers=1)
evaluations = [dict(type="RadarSegmentation")]
"""


@DATASETS.register_module()
class ToySplitFrames(ToyRadarFrames):
    """``ToyRadarFrames`` with a split."""

    def __init__(self, split: str, leave_out: int = 0) -> None:
        frames, seed = SPLITS[split]
        super().__init__(frames - leave_out, moments=2, seed=seed)


def toy_comparison(folder: Path, **options: object) -> Comparison:
    """Two models; ``options`` of ``Comparison``."""
    models = {}
    for name, (moments, width) in {"small": (1, 2), "large": (2, 6)}.items():
        path = folder / f"{name}.py"
        path.write_text(CONFIG.format(moments=moments, width=width), encoding="utf-8")
        models[name] = load_config(path)
    chosen = {"seeds": 2, "samples": 7, "learning_rates": (0.001, 0.03), "reference": "large", **options}
    return Comparison(models=models, **chosen)  # type: ignore[arg-type]
