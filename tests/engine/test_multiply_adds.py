from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.engine.multiply_adds import count_multiply_adds, multiply_adds_of
from adperception.models.radar.mv_net import MVNet
from adperception.models.radar.tmva_net import TMVANet
from adperception.models.radar.view_segmentation import ViewSegmentation
from adperception.zoo import create_model


def test_tmva_net_at_full_geometry() -> None:
    counted = multiply_adds_of(TMVANet())[""]
    assert counted.total == 95_617_548_288  # the 95.62 G of the literature
    assert counted.not_counted == ()
    assert counted.by_part()["ra_encoding_branch"] == max(counted.by_part().values())
    # The mean of the pyramid is spread over 64 x 64 positions before its convolution, three times.
    spread = [n for name, n in counted.by_module.items() if name.endswith("aspp_block.conv1_1x1")]
    assert spread == [128 * 128 * 64 * 64] * 3


@pytest.mark.parametrize("shared", [True, False])
def test_mv_net_at_full_geometry(shared: bool) -> None:
    counted = multiply_adds_of(MVNet(shared_blocks=shared))[""]
    assert counted.total == 53_283_225_600
    assert ("ra_double_conv_block1" in counted.by_part()) == (not shared)  # called twice: counted twice elsewhere


def test_reduced_geometry() -> None:
    assert multiply_adds_of(TMVANet(), (64, 64, 16))[""].total == 95_617_548_288 // 16


@pytest.mark.parametrize("cells", [(62, 64, 16), (64, 64, 0)])
def test_impossible_cells(cells: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        multiply_adds_of(MVNet(), cells)


def test_erase_net_grows_with_its_objects() -> None:
    counts = multiply_adds_of(create_model("erase_net_tiny"))
    assert list(counts) == ["0 objects", "1 object", "2 objects"]
    none, one, two = (c.total for c in counts.values())
    assert 0 < none < one
    assert two - one == one - none
    assert counts["2 objects"].not_counted == ()
    with pytest.raises(ValueError, match="Set its cube_shape"):
        multiply_adds_of(create_model("erase_net_tiny"), (256, 256, 64))


def test_sparse_layers_are_named_not_guessed() -> None:
    counted = multiply_adds_of(create_model("second_tiny"))[""]
    assert set(counted.by_part()) == {"backbone_2d", "dense_head"}
    assert "backbone_3d.conv_input.0" in counted.not_counted
    with pytest.raises(ValueError, match="no radar model"):
        multiply_adds_of(create_model("second_tiny"), (256, 256, 64))


def test_the_model_stays_as_it_is() -> None:
    model: ViewSegmentation = MVNet()
    multiply_adds_of(model)
    assert bool(model.class_weights.isnan().all())
    assert model.training
    assert next(model.parameters()).device.type == "cpu"
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Everything(nn.Module):
    """One of each operation, a convolution without a module, and a parameter that nobody can count."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(8, 12, (3, 1), stride=2, padding=2, dilation=(2, 1), groups=4)
        self.line = nn.Conv1d(4, 6, 5)
        self.up = nn.ConvTranspose2d(12, 10, 3, stride=3, groups=2)
        self.linear = nn.Linear(10, 7)
        self.free = nn.Parameter(torch.randn(5, 7, 1, 1))
        self.scale = Scale()

    def forward(self, image: Tensor) -> Tensor:
        image = self.up(self.grouped(image))
        image = self.linear(image.movedim(1, -1)).movedim(-1, 1)
        self.line(torch.zeros(4, 9))  # without a batch axis
        self.line(torch.zeros(3, 4, 9))
        return self.scale(F.conv2d(image, weight=self.free))


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(5, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return image * self.factors


def test_by_hand() -> None:
    model, image = Everything(), torch.zeros(2, 8, 11, 7)
    rows, columns = (11 + 4 - 4 - 1) // 2 + 1, (7 + 4 - 1) // 2 + 1
    small, large = rows * columns, 9 * rows * columns
    counted = count_multiply_adds(model, lambda: model(image))
    assert counted.by_module == {
        "grouped": 2 * small * 12 * 2 * 3,
        "up": 2 * small * 12 * 5 * 9,
        "linear": 2 * large * 10 * 7,
        "line": (1 + 3) * 5 * 6 * 4 * 5,
        "": 2 * large * 5 * 7,
    }
    assert counted.not_counted == ("scale",)
    assert counted.total == sum(counted.by_part().values())
    # A transposed convolution gives every output position as much work as a convolution of stride 1 / 3 would.
    assert counted.by_module["up"] == 2 * large * 12 * 5 * 9 // 9


def test_an_error_leaves_no_hook() -> None:
    model = Everything()
    with pytest.raises(RuntimeError):
        count_multiply_adds(model, lambda: model(torch.zeros(2, 9, 11, 7)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert math.prod(F.conv2d(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)).shape) == 4  # nobody is listening
