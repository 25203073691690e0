from __future__ import annotations

import pytest
import torch
from torch import nn

from adperception.optim._closure import evaluate, required, restored, with_gradient


def test_restored_gives_back_every_bit() -> None:
    """Also minus zero, which adding and subtracting a perturbation would lose, and in the old memory."""
    parameters = [nn.Parameter(torch.tensor([-0.0, 1e-30, 1.0])), nn.Parameter(torch.randn(2, 3, 4, 5))]
    before = [p.detach().clone() for p in parameters]
    addresses = [p.data_ptr() for p in parameters]

    def move_and_fail() -> None:
        with torch.no_grad(), restored([*parameters]) as values:
            torch._foreach_add_(parameters, 1.0)
            assert torch.equal(values[1], before[1])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        move_and_fail()
    for parameter, value in zip(parameters, before, strict=True):
        assert torch.equal(parameter.detach().view(torch.int32), value.view(torch.int32))
    assert [p.data_ptr() for p in parameters] == addresses
    with restored([]):
        pass


def test_a_loss_comes_without_its_graph_and_a_number_as_it_is() -> None:
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        loss = evaluate(lambda: x.sum())
        assert torch.is_grad_enabled() is False
    assert not loss.requires_grad
    assert evaluate(lambda: 2.5) == 2.5


def test_with_gradient_keeps_the_order() -> None:
    a, b, c = (nn.Parameter(torch.full((1,), float(i))) for i in range(3))
    a.grad, c.grad = torch.tensor([10.0]), torch.tensor([12.0])
    parameters, gradients = with_gradient([c, b, a])
    assert parameters[0] is c
    assert parameters[1] is a
    assert [g.item() for g in gradients] == [12, 10]


def test_a_missing_closure_is_named() -> None:
    with pytest.raises(ValueError, match=r"Thing.step\(\) needs a closure"):
        required(None, "Thing")
