"""Where the first weights of a run come from: the ``init`` section of a config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adperception.checkpoint.encoder import load_encoder
from adperception.checkpoint.layout import file_sha256
from adperception.checkpoint.load import load_weights, weights_file
from adperception.engine.settings import InitSettings
from adperception.models.base import TrainableModel

__all__ = ["Origin", "load_initial_weights"]


@dataclass(frozen=True)
class Origin:
    """What the first weights are.

    Attributes:
        sentence: for people, ``"initialised from X: 72/72 encoder tensors"``.
        record: for the results file, plain values.
    """

    sentence: str
    record: dict[str, Any]


def load_initial_weights(model: TrainableModel, init: InitSettings) -> Origin:
    """Fill ``model`` as the config says, or refuse.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if anything that is expected does not fit.
    """
    if init.encoder is not None:
        report = load_encoder(model, init.encoder, expect=init.expect, branch=init.branch, first_layer=init.first_layer)
        return Origin(str(report), report.record())
    assert init.weights is not None
    loaded = load_weights(model, init.weights)
    file = weights_file(Path(init.weights))
    record = {"weights": init.weights, "sha256": file_sha256(file), "tensors": len(loaded.loaded)}
    return Origin(f"initialised from {init.weights}: {len(loaded.loaded)}/{loaded.total} tensors", record)
