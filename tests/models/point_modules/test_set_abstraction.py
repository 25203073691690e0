"""Set abstraction against a loop over places and neighbours that uses torch's own convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adperception.models.point_modules.set_abstraction import Ball, FeaturePoints, SetAbstraction

BALLS = (Ball(0.6, 4, (8, 8)), Ball(1.5, 6, (8, 12)))


def by_loop(module: SetAbstraction, points: FeaturePoints, places: Tensor, frames: Tensor) -> Tensor:
    results = []
    for ball, mlp in zip(module.balls, module.mlps, strict=True):
        groups = []
        for place, frame in zip(places, frames.tolist(), strict=True):
            inside = [
                i
                for i, xyz in enumerate(points.xyz)
                if int(points.frames[i]) == frame and float(((xyz - place) ** 2).sum()) < ball.radius**2
            ]
            if not inside:
                groups.append(torch.zeros(ball.neighbours, 3 + points.features.shape[1]))
                continue
            taken = (inside[: ball.neighbours] + [inside[0]] * ball.neighbours)[: ball.neighbours]
            groups.append(torch.cat([points.xyz[taken] - place, points.features[taken]], dim=1))
        grid = torch.stack(groups).permute(2, 0, 1)[None]  # (1, C, M, n)
        layers: list[nn.Module] = []
        for layer in mlp:
            state = layer.state_dict()
            if "weight" in state and state["weight"].dim() == 4:
                layers.append(nn.Conv2d(state["weight"].shape[1], len(state["weight"]), 1, bias=False))
            elif "weight" in state:
                layers.append(nn.BatchNorm2d(len(state["weight"])))
            else:
                layers.append(nn.ReLU())
            layers[-1].load_state_dict(state)
        results.append(nn.Sequential(*layers).train(module.training)(grid)[0].max(dim=2).values.T)
    return torch.cat(results, dim=1)


def scene(points: int = 120, places: int = 25) -> tuple[FeaturePoints, Tensor, Tensor]:
    cloud = FeaturePoints(torch.rand(points, 3) * 4, torch.randint(0, 2, (points,)), torch.randn(points, 5))
    return cloud, torch.rand(places, 3) * 6 - 1, torch.randint(0, 3, (places,))  # frame 2 has no point


@pytest.mark.parametrize("training", [True, False])
def test_equals_a_loop(training: bool) -> None:
    module = SetAbstraction(5, BALLS).train(training)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    cloud, places, frames = scene()
    expected = by_loop(module, cloud, places, frames)
    actual = module(cloud, places, frames)
    assert actual.shape == (25, 20)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_names_are_openpcdets() -> None:
    shapes = {name: tuple(value.shape) for name, value in SetAbstraction(5, BALLS[1:]).named_parameters()}
    assert shapes["mlps.0.0.weight"] == (8, 8, 1, 1)
    assert shapes["mlps.0.3.weight"] == (12, 8, 1, 1)
    assert shapes["mlps.0.4.bias"] == (12,)


@pytest.mark.parametrize(("points", "places"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_there_still_reaches_every_parameter(points: int, places: int) -> None:
    module = SetAbstraction(5, BALLS)
    module(*scene(points, places)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
