"""MV-Net: range-Doppler and range-angle views of three frames, one shared latent space, two segmented views.

Ouaknine et al., "Multi-View Radar Semantic Segmentation", ICCV 2021 (arXiv 2103.16214). Module names, parameters and
outputs are those of the released network.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from adperception.models.radar.base import CARRADA_CLASSES
from adperception.models.radar.conv_blocks import (
    DoubleConvBlock,
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

__all__ = ["MVNet"]

_WIDTH = 128


@MODELS.register_module()
class MVNet(ViewSegmentation):
    """MV-Net, three frames unless told otherwise.

    The released code encodes the range-angle view with the two double blocks of the range-Doppler encoder, and runs
    each decoder's first double block twice. The four blocks that this leaves without work are there all the same, in
    the weights and in the published number of parameters, but do not learn.

    Where range and azimuth have as many bins and four times as many as Doppler, as in CARRADA, both encoders end at the
    same size. For other cubes the features of the other view are resized, which the published network does not know.

    Args:
        moments: T, the channels of the input.
        classes: foreground classes, in the order of the labels.
        normalization: ``"train"`` or ``"carrada_tvt"``, see ``ViewNormalization``.
        class_weights: see ``ViewSegmentation``.
        dice_weight: factor of the soft Dice loss.
        coherence_weight: factor of the coherence loss, which the published MV-Net does without.
        shared_blocks: as released; ``False``: every block does the work that its name says.
    """

    def __init__(
        self,
        moments: int = 3,
        classes: Sequence[str] = CARRADA_CLASSES,
        normalization: Preset = "train",
        class_weights: ClassWeights = "train",
        dice_weight: float = 10.0,
        coherence_weight: float = 0.0,
        shared_blocks: bool = True,
    ) -> None:
        super().__init__(moments, classes, normalization, class_weights, dice_weight, coherence_weight)
        self.shared_blocks = shared_blocks
        self.rd_double_conv_block1 = DoubleConvBlock(moments, _WIDTH)
        self.ra_double_conv_block1 = DoubleConvBlock(moments, _WIDTH)
        self.rd_double_conv_block2 = DoubleConvBlock(_WIDTH, _WIDTH)
        self.ra_double_conv_block2 = DoubleConvBlock(_WIDTH, _WIDTH)
        self.rd_single_conv_block1_1x1 = SingleConvBlock(_WIDTH, _WIDTH, kernel_size=1)
        self.ra_single_conv_block1_1x1 = SingleConvBlock(_WIDTH, _WIDTH, kernel_size=1)

        self.rd_single_conv_block2_1x1 = SingleConvBlock(2 * _WIDTH, _WIDTH, kernel_size=1)
        self.ra_single_conv_block2_1x1 = SingleConvBlock(2 * _WIDTH, _WIDTH, kernel_size=1)

        self.rd_upconv1 = upsample_rows(_WIDTH, _WIDTH)
        self.ra_upconv1 = upsample_rows_and_columns(_WIDTH, _WIDTH)
        self.rd_double_conv_block3 = DoubleConvBlock(_WIDTH, _WIDTH)
        self.ra_double_conv_block3 = DoubleConvBlock(_WIDTH, _WIDTH)
        self.rd_upconv2 = upsample_rows(_WIDTH, _WIDTH)
        self.ra_upconv2 = upsample_rows_and_columns(_WIDTH, _WIDTH)
        self.rd_double_conv_block4 = DoubleConvBlock(_WIDTH, _WIDTH)
        self.ra_double_conv_block4 = DoubleConvBlock(_WIDTH, _WIDTH)
        self.rd_final = nn.Conv2d(_WIDTH, self.outputs, 1)
        self.ra_final = nn.Conv2d(_WIDTH, self.outputs, 1)
        initialise_like_mvrss(self)
        if shared_blocks:
            for idle in (
                self.ra_double_conv_block1,
                self.ra_double_conv_block2,
                self.rd_double_conv_block4,
                self.ra_double_conv_block4,
            ):
                idle.requires_grad_(False)

    def logits(self, range_doppler: Tensor, range_angle: Tensor, angle_doppler: Tensor | None = None) -> ViewLogits:
        """See ``ViewSegmentation.logits``; the angle-Doppler view is not looked at."""
        shared = self.shared_blocks
        rd = self.rd_double_conv_block1(pad_one_column(range_doppler))
        rd = F.max_pool2d(rd, 2, stride=(2, 1))
        rd = self.rd_double_conv_block2(pad_one_column(rd))
        rd = self.rd_single_conv_block1_1x1(F.max_pool2d(rd, 2, stride=(2, 1)))

        ra = (self.rd_double_conv_block1 if shared else self.ra_double_conv_block1)(range_angle)
        ra = F.max_pool2d(ra, 2, stride=2)
        ra = (self.rd_double_conv_block2 if shared else self.ra_double_conv_block2)(ra)
        ra = self.ra_single_conv_block1_1x1(F.max_pool2d(ra, 2, stride=2))
        latents = (rd, ra)

        rd = self.rd_upconv1(self.rd_single_conv_block2_1x1(join_views(latents, rd)))
        rd = self.rd_upconv2(self.rd_double_conv_block3(rd))
        rd = self.rd_final((self.rd_double_conv_block3 if shared else self.rd_double_conv_block4)(rd))

        ra = self.ra_upconv1(self.ra_single_conv_block2_1x1(join_views(latents, ra)))
        ra = self.ra_upconv2(self.ra_double_conv_block3(ra))
        ra = self.ra_final((self.ra_double_conv_block3 if shared else self.ra_double_conv_block4)(ra))
        return ViewLogits(rd, ra)
