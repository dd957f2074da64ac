"""Augmentations of batched tensors: views of samples that depend on (seed, stream position, view, modality) alone."""

from mmpretrain.data.augment.augmenter import Augmenter

__all__ = ["Augmenter"]
