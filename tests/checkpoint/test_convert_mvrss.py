from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adperception.checkpoint.convert import read_foreign, write_foreign
from adperception.checkpoint.convert_mvrss import from_mvrss, to_mvrss
from adperception.checkpoint.foreign import recognise
from adperception.checkpoint.layout import CheckpointError
from adperception.models.radar.mv_net import MVNet
from adperception.models.radar.tmva_net import TMVANet
from adperception.zoo import create_model


def theirs(kind: Any) -> dict[str, torch.Tensor]:
    return to_mvrss(kind().state_dict())


@pytest.mark.golden
@pytest.mark.parametrize("name", ["tmva_net", "mv_net"])
def test_stored_upstream_state_and_back(name: str, golden: Path, tmp_path: Path) -> None:
    stored = np.load(golden / f"{name}.npz")
    state = {k.removeprefix("state/"): torch.from_numpy(stored[k]) for k in stored.files if k.startswith("state/")}
    torch.save(state, tmp_path / "model.pt")
    converted = read_foreign(tmp_path / "model.pt")
    assert converted.library == "mvrss"
    assert "CARRADA's published" in converted.notes[0]
    model = create_model(f"{name}_carrada")
    expected = {n: v.clone() for n, v in model.state_dict().items() if n not in state}
    model.load_state_dict(converted.state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key] if key in expected else state[key].to(value.dtype)), key
    assert write_foreign(tmp_path / "back.pt", "mvrss", model.state_dict()) == len(state)
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert all(torch.equal(back[key], value.to(back[key].dtype)) for key, value in state.items())


def test_pickled_file_is_refused_with_the_command(tmp_path: Path) -> None:
    torch.save(theirs(TMVANet), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"looks like an MVRSS checkpoint.*--from mvrss"):
        create_model("tmva_net_carrada", tmp_path / "model.pt")


@pytest.mark.parametrize("kind", [TMVANet, MVNet])
def test_names_are_recognised(kind: Any) -> None:
    found = recognise(theirs(kind))
    assert found is not None
    assert found.key == "mvrss"


def test_what_does_not_belong_is_named() -> None:
    state = theirs(MVNet)
    with pytest.raises(CheckpointError, match=r'taken for MVNet, but "rd_strange" is not'):
        from_mvrss({**state, "rd_strange": torch.zeros(1)})
    del state["ra_final.bias"]
    with pytest.raises(CheckpointError, match=r'"ra_final.bias" is missing'):
        from_mvrss(state)
    with pytest.raises(CheckpointError, match="3 outputs"):
        from_mvrss(to_mvrss(MVNet(classes=["a", "b"]).state_dict()))
    with pytest.raises(CheckpointError, match="not the tensors"):
        to_mvrss({"x": torch.zeros(1)})
