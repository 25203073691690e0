from __future__ import annotations

import copy
import json

import matplotlib.image
import numpy as np
import pytest
import torch
from stand_in_model import StandInModel, make_batch

from adperception.evaluation.batch_norm_statistics import mask_generator
from adperception.visualization.pretraining_panel import (
    bev_pictures,
    pca_colors,
    write_run_pictures,
)


def test_maps_agree_with_the_embeddings():
    model, batch = StandInModel().eval(), make_batch(0)
    with torch.no_grad():
        e = model.embed(batch, mask_generator(5, 0, 0))
        called_empty = (e.prediction * torch.nn.functional.normalize(model.empty_token, dim=1)).sum(1)[1] > 0.5
        cosine = (e.prediction * e.target).sum(1)[1]
    pictures = bev_pictures(model, batch, frame=1, mask_seed=5)
    masks = e.masks
    order = (masks.context_empty, masks.target_empty, masks.context_cells, masks.target_cells)
    for k, mask in enumerate(order):
        np.testing.assert_array_equal(pictures.masks == k, mask[1].numpy())
    hidden = (masks.target_cells | masks.target_empty)[1]
    for k, cells in enumerate(
        (
            ~hidden,
            masks.target_empty[1] & called_empty,
            masks.target_cells[1] & ~called_empty,
            masks.target_cells[1] & called_empty,
            masks.target_empty[1] & ~called_empty,
        )
    ):
        np.testing.assert_array_equal(pictures.calls == k, cells.numpy())
    np.testing.assert_allclose(pictures.cosines[hidden.numpy()], cosine[hidden].numpy(), atol=1e-6)
    assert np.isnan(pictures.cosines[~hidden.numpy()]).all()
    occupied = np.isin(pictures.masks, (2, 3))
    assert (pictures.colors[~occupied] == 1).all()
    assert pictures.frame_id == "000_1"
    assert pictures.points.shape == (400, 2)


def test_pca_colors_separate_directions():
    rows = torch.zeros(90, 6)
    for k in range(3):
        rows[30 * k : 30 * (k + 1), k] = 1 + torch.rand(30)
    colors, explained = pca_colors(rows)
    assert explained == pytest.approx(1.0)
    assert (colors >= 0).all()
    assert (colors <= 1).all()
    for k in range(3):
        assert np.ptp(colors[30 * k : 30 * (k + 1)], axis=0).max() < 1e-6  # lengths do not matter
    assert min(np.abs(colors[0] - colors[30]).max(), np.abs(colors[30] - colors[60]).max()) > 0.5
    assert pca_colors(torch.ones(1, 6))[0].shape == (1, 3)
    assert np.isfinite(pca_colors(torch.ones(9, 6))[0]).all()


def test_run_pictures_are_written_and_leave_the_model_alone(tmp_path):
    model, batches = StandInModel().eval(), [make_batch(0), make_batch(1)]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps({"step": s, "loss": 1 / s, "effective_rank": 5 + s}) for s in range(1, 5)))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    written = write_run_pictures(model, batches, log, tmp_path / "pictures", device="cpu")
    assert [path.name for path in written] == ["pretraining_panel.png", "training_curves.png"]
    for path in written:
        assert matplotlib.image.imread(path)[..., :3].std() > 0.01
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_other_models_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="Linear has no embed"):
        write_run_pictures(torch.nn.Linear(1, 1), [], tmp_path / "log.jsonl", tmp_path, device="cpu")
