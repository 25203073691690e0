"""PKCIn-Net: TMVA-Net whose encoders compare every cell with a ring of reference cells, as CFAR detectors do.

Zhang et al., "PeakConv: Learning Peak Receptive Field for Radar Semantic Segmentation", CVPR 2023. What the network is
made of was read in the authors' public code (github.com/zlw9161/PKC and github.com/lihua199710/AdaPKC); the two differ
in the number of guard cells, see ``PKCInNet``. There are no stored outputs of theirs to compare with: what is checked
is the definition of the operator, and the sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adperception.models.radar.base import CARRADA_CLASSES
from adperception.models.radar.normalization import Preset
from adperception.models.radar.peak_convolution import DoublePeakConvBlock
from adperception.models.radar.tmva_net import WIDTH, EncodingBranch, PooledAxes, TemporalMultiView
from adperception.models.radar.view_segmentation import ClassWeights
from adperception.registry import MODELS

__all__ = ["PKCInNet"]


class PeakEncodingBranch(EncodingBranch):
    """TMVA-Net's encoder with two peak convolutions instead of its second pair of convolutions.

    Args:
        pooled: see ``EncodingBranch``.
        guard_cells: see ``PeakConv``.
    """

    def __init__(self, pooled: PooledAxes, guard_cells: int) -> None:
        super().__init__(pooled)
        del self.double_conv_block2
        self.double_pkc_block = DoublePeakConvBlock(WIDTH, WIDTH, guard_cells)

    def refine(self, features: Tensor) -> Tensor:
        """``(B, 128, H, W)``, pooled once, to the same shape."""
        return self.double_pkc_block(features)  # type: ignore[no-any-return]


@MODELS.register_module()
class PKCInNet(TemporalMultiView):
    """PKCIn-Net, five frames.

    Args:
        classes: foreground classes, in the order of the labels.
        normalization: ``"train"`` or ``"carrada_tvt"``, see ``ViewNormalization``.
        class_weights: see ``ViewSegmentation``.
        dice_weight: factor of the soft Dice loss.
        coherence_weight: factor of the coherence loss.
        guard_cells: between a cell and the ring, on each side. 1 has the published size, 6.3 million parameters, and
            stands in the authors' later code; 2 (7.1 million) in the code of the paper itself.
    """

    def __init__(
        self,
        classes: Sequence[str] = CARRADA_CLASSES,
        normalization: Preset = "train",
        class_weights: ClassWeights = "train",
        dice_weight: float = 10.0,
        coherence_weight: float = 5.0,
        guard_cells: int = 1,
    ) -> None:
        super().__init__(
            lambda pooled: PeakEncodingBranch(pooled, guard_cells),
            classes,
            normalization,
            class_weights,
            dice_weight,
            coherence_weight,
        )
