from __future__ import annotations

import pytest

from adperception.evaluation.summary_table import summary_table

BEFORE = {"val_loss": 0.8, "effective_rank": 20.0, "k_means_foreground_iou": float("nan"), "other": 1.0}
AFTER = {"val_loss": 0.25, "effective_rank": 81.5, "k_means_foreground_iou": 0.5}


def test_table_reads_as_written():
    assert summary_table(BEFORE, AFTER).splitlines() == [
        "                        before   after   change",
        "-----------------------------------------------",
        "validation loss         0.8000  0.2500  -0.5500",
        "effective rank           20.00   81.50   +61.50",
        "k-means foreground IoU     n/a  0.5000      n/a",
    ]


def test_missing_measure_is_named():
    with pytest.raises(ValueError, match=r"after has no val_loss"):
        summary_table(BEFORE, {"effective_rank": 1.0, "k_means_foreground_iou": 1.0})
