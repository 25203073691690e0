"""TMVA-Net: three views of five frames, spatial pyramids, two segmented views.

Ouaknine et al., "Multi-View Radar Semantic Segmentation", ICCV 2021 (arXiv 2103.16214). Module names, parameters and
outputs are those of the released network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.models.radar.base import CARRADA_CLASSES
from adperception.models.radar.conv_blocks import (
    DoubleConvBlock,
    DoubleConvBlock3d,
    SingleConvBlock,
    initialise_like_mvrss,
    join_views,
    pad_one_column,
    upsample_rows,
    upsample_rows_and_columns,
)
from adperception.models.radar.normalization import Preset
from adperception.models.radar.view_segmentation import ClassWeights, ViewLogits, ViewSegmentation
from adperception.registry import MODELS

__all__ = ["WIDTH", "EncodingBranch", "PooledAxes", "TMVANet", "TemporalMultiView"]

PooledAxes = Literal["rows", "rows_and_columns"]

WIDTH = 128
"""Channels everywhere."""

_MOMENTS = 5


class EncodingBranch(nn.Module):
    """Five moments of one view to a quarter of the rows.

    Args:
        pooled: ``"rows"``: columns stay as many (Doppler), ``"rows_and_columns"``: a quarter of the columns too.
    """

    def __init__(self, pooled: PooledAxes) -> None:
        super().__init__()
        self.pooled = pooled
        self.double_3dconv_block1 = DoubleConvBlock3d(1, WIDTH)
        self.double_conv_block2 = DoubleConvBlock(WIDTH, WIDTH)
        self.single_conv_block1_1x1 = SingleConvBlock(WIDTH, WIDTH, kernel_size=1)

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, 5, rows, columns)`` to pooled features for the pyramid and to the view's share of the latent space."""
        features = self.double_3dconv_block1(view.unsqueeze(1)).squeeze(2)
        features = self._pool(self.refine(self._pool(features)))
        return features, self.single_conv_block1_1x1(features)

    def refine(self, features: Tensor) -> Tensor:
        """``(B, 128, H, W)``, pooled once, to the same shape."""
        return self.double_conv_block2(features)  # type: ignore[no-any-return]

    def _pool(self, features: Tensor) -> Tensor:
        if self.pooled == "rows":
            return F.max_pool2d(pad_one_column(features), 2, stride=(2, 1))
        return F.max_pool2d(features, 2, stride=2)


class ASPPBlock(nn.Module):
    """Atrous spatial pyramid pooling: one point, three dilated neighbourhoods, and the mean of the view, stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.single_conv_block1_1x1 = SingleConvBlock(WIDTH, WIDTH, kernel_size=1)
        self.single_conv_block1_3x3 = SingleConvBlock(WIDTH, WIDTH, dilation=6)
        self.single_conv_block2_3x3 = SingleConvBlock(WIDTH, WIDTH, dilation=12)
        self.single_conv_block3_3x3 = SingleConvBlock(WIDTH, WIDTH, dilation=18)
        self.conv1_1x1 = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, 128, H, W)`` to ``(B, 640, H, W)``."""
        mean = features.mean(dim=(2, 3), keepdim=True)
        scales = (
            self.single_conv_block1_1x1(features),
            self.single_conv_block1_3x3(features),
            self.single_conv_block2_3x3(features),
            self.single_conv_block3_3x3(features),
            # The released network spreads the mean before this convolution, which costs H x W times as much.
            self.conv1_1x1(mean.expand_as(features)),
        )
        return torch.cat(scales, dim=1)


class TemporalMultiView(ViewSegmentation):
    """TMVA-Net with any encoders.

    Where range and azimuth have as many bins and four times as many as Doppler, as in CARRADA, all encoders end at the
    same size. For other cubes the features of the other views are resized to the view that is decoded, which the
    published network does not know.

    Args:
        make_branch: the encoder of a view that is pooled along these axes.
        classes: foreground classes, in the order of the labels.
        normalization: ``"train"`` or ``"carrada_tvt"``, see ``ViewNormalization``.
        class_weights: see ``ViewSegmentation``.
        dice_weight: factor of the soft Dice loss.
        coherence_weight: factor of the coherence loss.
    """

    COMPILED: ClassVar[tuple[str, ...]] = (
        *("rd_encoding_branch", "ra_encoding_branch", "ad_encoding_branch"),
        *("rd_aspp_block", "ra_aspp_block", "ad_aspp_block"),
    )

    def __init__(
        self,
        make_branch: Callable[[PooledAxes], EncodingBranch],
        classes: Sequence[str],
        normalization: Preset,
        class_weights: ClassWeights,
        dice_weight: float,
        coherence_weight: float,
    ) -> None:
        super().__init__(_MOMENTS, classes, normalization, class_weights, dice_weight, coherence_weight)
        self.rd_encoding_branch = make_branch("rows")
        self.ra_encoding_branch = make_branch("rows_and_columns")
        self.ad_encoding_branch = make_branch("rows")

        self.rd_aspp_block = ASPPBlock()
        self.ra_aspp_block = ASPPBlock()
        self.ad_aspp_block = ASPPBlock()
        self.rd_single_conv_block1_1x1 = SingleConvBlock(5 * WIDTH, WIDTH, kernel_size=1)
        self.ra_single_conv_block1_1x1 = SingleConvBlock(5 * WIDTH, WIDTH, kernel_size=1)
        self.ad_single_conv_block1_1x1 = SingleConvBlock(5 * WIDTH, WIDTH, kernel_size=1)

        self.rd_single_conv_block2_1x1 = SingleConvBlock(3 * WIDTH, WIDTH, kernel_size=1)
        self.ra_single_conv_block2_1x1 = SingleConvBlock(3 * WIDTH, WIDTH, kernel_size=1)

        self.rd_upconv1 = upsample_rows(3 * WIDTH, WIDTH)
        self.ra_upconv1 = upsample_rows_and_columns(3 * WIDTH, WIDTH)
        self.rd_double_conv_block1 = DoubleConvBlock(WIDTH, WIDTH)
        self.ra_double_conv_block1 = DoubleConvBlock(WIDTH, WIDTH)
        self.rd_upconv2 = upsample_rows(WIDTH, WIDTH)
        self.ra_upconv2 = upsample_rows_and_columns(WIDTH, WIDTH)
        self.rd_double_conv_block2 = DoubleConvBlock(WIDTH, WIDTH)
        self.ra_double_conv_block2 = DoubleConvBlock(WIDTH, WIDTH)
        self.rd_final = nn.Conv2d(WIDTH, self.outputs, 1)
        self.ra_final = nn.Conv2d(WIDTH, self.outputs, 1)
        initialise_like_mvrss(self)

    def logits(self, range_doppler: Tensor, range_angle: Tensor, angle_doppler: Tensor) -> ViewLogits:
        """See ``ViewSegmentation.logits``."""
        rd_features, rd_latent = self.rd_encoding_branch(range_doppler)
        ra_features, ra_latent = self.ra_encoding_branch(range_angle)
        ad_features, ad_latent = self.ad_encoding_branch(angle_doppler)
        latents = (rd_latent, ra_latent, ad_latent)

        rd_context = self.rd_single_conv_block1_1x1(self.rd_aspp_block(rd_features))
        ra_context = self.ra_single_conv_block1_1x1(self.ra_aspp_block(ra_features))
        ad_context = self.ad_single_conv_block1_1x1(self.ad_aspp_block(ad_features))

        rd_shared = self.rd_single_conv_block2_1x1(join_views(latents, rd_context))
        rd = self.rd_upconv1(join_views((rd_context, rd_shared, ad_context), rd_context))
        rd = self.rd_upconv2(self.rd_double_conv_block1(rd))
        rd = self.rd_final(self.rd_double_conv_block2(rd))

        ra_shared = self.ra_single_conv_block2_1x1(join_views(latents, ra_context))
        ra = self.ra_upconv1(join_views((ra_context, ra_shared, ad_context), ra_context))
        ra = self.ra_upconv2(self.ra_double_conv_block1(ra))
        ra = self.ra_final(self.ra_double_conv_block2(ra))
        return ViewLogits(rd, ra)


@MODELS.register_module()
class TMVANet(TemporalMultiView):
    """TMVA-Net, five frames; see ``TemporalMultiView`` for cubes of other proportions than CARRADA's.

    Args:
        classes: foreground classes, in the order of the labels.
        normalization: ``"train"`` or ``"carrada_tvt"``, see ``ViewNormalization``.
        class_weights: see ``ViewSegmentation``.
        dice_weight: factor of the soft Dice loss.
        coherence_weight: factor of the coherence loss.
    """

    def __init__(
        self,
        classes: Sequence[str] = CARRADA_CLASSES,
        normalization: Preset = "train",
        class_weights: ClassWeights = "train",
        dice_weight: float = 10.0,
        coherence_weight: float = 5.0,
    ) -> None:
        super().__init__(EncodingBranch, classes, normalization, class_weights, dice_weight, coherence_weight)
