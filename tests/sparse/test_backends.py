"""Choice of the backend."""

from __future__ import annotations

import pytest
import torch

from adperception.sparse import SparseTensor, SubMConv3d, available_backends, backends, set_backend, use_backend


def test_cpu_never_routes_through_spconv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the package is installed: its CPU results are wrong with several threads."""
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: object())
    assert available_backends("cpu") == ("torch",)
    assert backends.backend_for(torch.device("cpu")) == "torch"
    assert available_backends("cuda") == ("spconv", "torch")
    with use_backend("spconv"), pytest.raises(ValueError, match="wrong results with more than one thread"):
        SubMConv3d(1, 1, 3)(SparseTensor(torch.zeros(1, 1), torch.zeros(1, 4, dtype=torch.int32), (2, 2, 2), 1))


def test_without_spconv_cuda_uses_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    assert available_backends("cuda") == ("torch",)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "adperception\[gpu\]"'):
        set_backend("spconv")


def test_unknown_name_and_restored_selection() -> None:
    with pytest.raises(ValueError, match=r'sparse backend "cudnn" is unknown\. Available: auto, torch, spconv'):
        set_backend("cudnn")
    with use_backend("torch"):
        assert backends._selected == "torch"
    assert backends._selected == "auto"
