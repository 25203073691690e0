"""Small networks with everything that ties channels together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.models.base import Losses, TrainableModel


class Toy(TrainableModel):
    """A network on maps ``(B, 3, 8, 8)`` that the engine could train."""

    shape: tuple[int, ...] = (2, 3, 8, 8)

    def example(self) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(0))

    def compute(self, maps: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, batch: Any, generator: torch.Generator | None = None) -> Losses:
        return Losses.sum_of({"square": self.compute(batch).square().mean()})

    def collate(self, training: bool) -> Callable[[Sequence[Any]], Any]:
        return torch.stack


def layer(inputs: int, outputs: int, **options: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **options), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)
    )


class Skip(Toy):
    """Additions: three layers' channels are one group."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = layer(3, 12), layer(12, 12), layer(12, 12)
        self.out = nn.Conv2d(12, 2, 1)

    def compute(self, maps: Tensor) -> Tensor:
        x = self.first(maps)
        x = x + self.second(x)
        y = self.third(x).clone()
        y += x
        return self.out(torch.sigmoid(y))


class Concat(Toy):
    """A U-net: pooling, transposed convolution, concatenation, wrap-around padding, and a class head with mean."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = layer(3, 10), layer(10, 14, stride=2)
        self.up = nn.ConvTranspose2d(14, 9, 2, stride=2)
        self.norm = nn.BatchNorm2d(9)
        self.merge = layer(19, 8)
        self.out = nn.Conv2d(8, 2, 1)
        self.head = nn.Linear(14, 5)

    def compute(self, maps: Tensor) -> Tensor:
        fine = self.fine(maps)
        coarse = self.coarse(torch.cat([fine[..., -1:], fine, fine[..., :1]], dim=-1))[..., :4]
        up = F.relu(self.norm(self.up(coarse)))
        merged = self.merge(torch.cat([up, fine], dim=1))
        objects = self.head(coarse.mean(dim=(2, 3)))
        return self.out(merged) + objects.mean()


class Shared(Toy):
    """One block used twice, and padded by a column, as in MV-Net; another block never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layer(3, 8)
        self.block = layer(8, 8)
        self.unused = layer(8, 8)
        self.alias = self.block
        self.out = nn.Conv2d(8, 2, 1)

    def compute(self, maps: Tensor) -> Tensor:
        x = F.pad(self.first(maps), (0, 1))
        return self.out(self.block(F.max_pool2d(self.block(x), 2)))


class Volume(Toy):
    """Three-dimensional convolutions, an axis folded into channels, and a channel laid over places, as in TMVA-Net."""

    shape = (2, 1, 3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.volume = nn.Sequential(nn.Conv3d(1, 7, 3, padding=(0, 1, 1)), nn.BatchNorm3d(7), nn.ReLU(inplace=True))
        self.wide = nn.Conv3d(1, 5, 3, padding=1)
        self.fold = layer(7 + 15, 9)
        self.pooled = nn.Conv2d(9, 6, 1)
        self.gate = nn.Conv2d(9, 1, 1)
        self.depthwise = nn.Conv2d(9, 9, 3, padding=1, groups=9)
        self.out = nn.Conv2d(15, 2, 1)

    def compute(self, maps: Tensor) -> Tensor:
        folded = torch.cat([self.volume(maps).squeeze(2), self.wide(maps).flatten(1, 2)], dim=1)
        x = self.fold(folded)
        pooled = F.interpolate(self.pooled(F.adaptive_avg_pool2d(x, 1)), size=x.shape[2:], mode="nearest")
        return self.out(torch.cat([self.depthwise(x) * torch.sigmoid(self.gate(x)), pooled], dim=1))


class Mixed(Toy):
    """Operations that mix channels, which must then stay: softmax over them, and a sum with the input."""

    shape = (2, 6, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.soft, self.added, self.free = layer(6, 6), layer(6, 6), layer(6, 16)
        self.out = nn.Conv2d(16, 2, 1)

    def compute(self, maps: Tensor) -> Tensor:
        x = self.soft(maps).softmax(dim=1)
        return self.out(self.free(self.added(x) + maps))


NETWORKS: tuple[type[Toy], ...] = (Skip, Concat, Shared, Volume, Mixed)


def trained(network: type[Toy], seed: int = 0) -> Toy:
    """With weights and batch-norm statistics that are all different."""
    torch.manual_seed(seed)
    model = network()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape) + 0.5 if value.dim() == 1 else torch.randn(value.shape) / 4)
    return model.eval()
