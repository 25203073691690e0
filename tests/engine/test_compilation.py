"""Compiling the parts that models name: one graph each, the same numbers, the same names."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adperception import zoo
from adperception.engine import compilation
from adperception.engine.compilation import c_compiler, compile_modules
from adperception.models.base import TrainableModel
from adperception.registry import MODELS

from toy_runs import Run

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def named_modules() -> list[tuple[str, str]]:
    """One zoo model per class, and per class every module that it names (of twins one)."""
    found: dict[type[TrainableModel], str] = {}
    for name in zoo.list_models():
        found.setdefault(MODELS.find(zoo.load_model_config(name).values["model"]), name)
    # The angle-Doppler branch is built as the range-Doppler branch is.
    return [(name, module) for cls, name in found.items() for module in cls.COMPILED if not module.startswith("ad_")]


CASES = named_modules()
create_model = functools.cache(zoo.create_model)


def example(module: nn.Module, name: str, batch: int) -> Tensor:
    """A small input: what the module's first layer takes."""
    first = next(m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)))
    generator = torch.Generator().manual_seed(batch)
    if name.endswith("encoding_branch"):
        return torch.rand(batch, 5, 16, 16, generator=generator)
    channels = first.in_channels * (2 if isinstance(first, nn.ConvTranspose3d) else 1)  # two layers are stacked
    return torch.rand(batch, channels, 8, 8, generator=generator)


def flat(output: Any) -> Tensor:
    return torch.cat([part.float().flatten() for part in (output if isinstance(output, tuple) else (output,))])


def test_the_models_with_dense_parts_name_them() -> None:
    named = {type(create_model(name)).__name__ for name, _ in CASES}
    assert {"ADLJEPA", "BEVMAE", "OccupancyMAE", "SECOND", "CenterPoint", "PVRCNN", "TMVANet", "ERASENet"} <= named


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize(("model", "name"), CASES)
def test_one_graph_with_the_same_numbers(model: str, name: str, amp: bool) -> None:
    module = create_model(model).get_submodule(name).train()
    plain = copy.deepcopy(module)
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(len(inputs))
        return graph.forward

    compiled = torch.compile(module, backend=backend, fullgraph=True)  # a break is an error
    for batch in (2, 3):
        inputs = example(module, name, batch)
        results = []
        for function in (plain, compiled):
            argument = inputs.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                output = flat(function(argument))
            (gradient,) = torch.autograd.grad(output.square().sum(), argument)
            results.append((output, gradient))
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)
    assert len(graphs) <= 2  # the second for another number of frames
    inputs = example(module, name, 5).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        compiled(inputs)
    assert len(graphs) <= 2  # and none for a third


def test_names_and_copies_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.create_model("ad_l_jepa_tiny")
    names = list(model.state_dict())
    compile_torch, modes = torch.compile, []

    def compile_eagerly(function: Any, **options: Any) -> Any:
        modes.append(options.pop("mode", None))
        return compile_torch(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    inputs = torch.rand(1, 256, 4, 4)
    plain = model.predictor(inputs)
    model.load_state_dict(zoo.create_model("ad_l_jepa_tiny").state_dict())
    assert compile_modules(model, "max-autotune", CPU) == ("predictor",)
    assert modes == ["max-autotune"]
    assert list(model.state_dict()) == names
    copied = copy.deepcopy(model)
    assert torch.equal(copied.predictor(inputs), model.predictor(inputs))
    assert plain.shape == (1, 256, 4, 4)


@pytest.mark.parametrize("setting", [None, False])
def test_not_on_a_cpu_unless_it_is_asked_for(setting: bool | None) -> None:
    model = zoo.create_model("ad_l_jepa_tiny")
    assert compile_modules(model, setting, CPU) == ()
    assert model.predictor._compiled_call_impl is None


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.create_model("ad_l_jepa_tiny")
    with pytest.raises(
        ValueError, match=r'"max-autotun" is not a mode of torch.compile. Did you mean "max-autotune"\?'
    ):
        compile_modules(model, "max-autotun", CPU)
    monkeypatch.setattr(compilation, "c_compiler", lambda: None)
    with pytest.raises(
        ValueError, match=r"train.compile=True needs a C compiler \(gcc or clang\)\. Install it, or set"
    ):
        compile_modules(model, True, CPU)
    assert compile_modules(model, None, torch.device("cuda")) == ()
    monkeypatch.undo()
    monkeypatch.setattr(compilation, "c_compiler", lambda: "/usr/bin/gcc")
    monkeypatch.setattr(compilation.sysconfig, "get_path", lambda name: "/nowhere")
    with pytest.raises(ValueError, match=r"train.compile=True needs Python's header files \(Python.h;"):
        compile_modules(model, True, CPU)


@pytest.mark.skipif(c_compiler() is None, reason="needs a C compiler")
def test_a_run_says_what_it_compiled(tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import toy

    monkeypatch.setattr(toy.ToyModel, "COMPILED", ("online",))
    compile_torch = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode=None, **options: compile_torch(f, backend="eager", **options))
    compiled = run_toy(tmp_path / "compiled", "train.compile=True", "train.epochs=1")
    monkeypatch.undo()
    plain = run_toy(tmp_path / "plain", "train.epochs=1")
    for one, other in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)
    results = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("compiled", "plain")]
    assert [result["compile"] for result in results] == [["online"], []]
    assert results[1]["sparse_backend"] == "torch"
