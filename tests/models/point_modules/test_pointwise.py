from __future__ import annotations

import pytest
import torch
from torch import nn

from adperception.models.point_modules.pointwise import DrawnDropout, PointwiseLinear, PointwiseNetwork


@pytest.mark.parametrize("axes", [0, 1, 2])
def test_a_layer_is_a_convolution_of_size_1(axes: int) -> None:
    layer = PointwiseLinear(5, 7, axes, bias=True)
    twin = (nn.Linear(5, 7), nn.Conv1d(5, 7, 1), nn.Conv2d(5, 7, 1))[axes]
    twin.load_state_dict(layer.state_dict())  # the same names and shapes
    rows = torch.randn(11, 5)
    expected = twin(rows.view(11, 5, *[1] * axes)).view(11, 7)
    torch.testing.assert_close(layer(rows), expected)


def test_dropout_follows_its_generator() -> None:
    dropout, rows = DrawnDropout(0.3), torch.ones(400, 50)
    first, again = (dropout(rows, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert float((first == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(first.mean()) == pytest.approx(1, abs=0.03)
    assert torch.equal(dropout.eval()(rows), rows)
    with pytest.raises(ValueError, match=r"dropout=1\.0 must be at least 0 and below 1"):
        DrawnDropout(1.0)


def test_positions_of_layers_are_openpcdets() -> None:
    network = PointwiseNetwork([4, 8, 8], 1, outputs=3, dropout=0.5)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters() if "weight" in name}
    assert shapes == {
        "0.weight": (8, 4, 1),
        "1.weight": (8,),
        "4.weight": (8, 8, 1),  # 2 is the activation, 3 the dropout
        "5.weight": (8,),
        "7.weight": (3, 8, 1),
    }
    assert network(torch.randn(6, 4), torch.Generator().manual_seed(0)).shape == (6, 3)


@pytest.mark.parametrize("rows", [0, 1])
def test_hardly_any_row(rows: int) -> None:
    network = PointwiseNetwork([4, 8], outputs=1)
    network(torch.randn(rows, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
