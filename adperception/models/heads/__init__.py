"""Detection heads: anchors, targets, losses, decoding."""
