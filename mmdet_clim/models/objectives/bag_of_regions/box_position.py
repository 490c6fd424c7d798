# Licensed under the Apache License, Version 2.0.
"""Where a region lies in its bag, as additions to its pseudo-words."""
import math

import torch
from torch import Tensor, nn

# Of each of the four numbers of a box, and the ratio of two neighbouring
# frequencies, of which the one in the middle is 1.
NUM_SINES = 128
FREQUENCY_RATIO = 1.2
# The layer of a region's words starts so too (mmdet's BBoxHead).
STD = 0.01


class BoxPosition(nn.Module):
    """Learned vectors of a box, one per pseudo-word of its region.

    Sines and cosines of each of centre and size, then a linear layer, a layer
    norm and a linear layer (REFERENCE.md, section 3).

    Args:
        num_words (int): Pseudo-words of a region.
        word_dim (int): Width of a word vector.
    """

    def __init__(self, num_words: int, word_dim: int) -> None:
        super().__init__()
        self.num_words = num_words
        width = 4 * NUM_SINES
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width),
            nn.Linear(width, num_words * word_dim))
        nn.init.normal_(self.layers[-1].weight, std=STD)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, bboxes: Tensor) -> Tensor:
        """Embed boxes.

        Args:
            bboxes (Tensor): Shape (N, 4): x and y of the centre, width and
                height, normalised to [0, 1].

        Returns:
            Tensor: Shape (N, num_words, word_dim), float32.
        """
        # Half precision has no room for the larger angles.
        with torch.autocast(bboxes.device.type, enabled=False):
            sines = box_sines(bboxes.float())
            words = self.layers(sines.to(self.layers[0].weight))
        return words.unflatten(1, (self.num_words, -1))


def box_sines(bboxes: Tensor) -> Tensor:
    r"""Sines and cosines of boxes.

    Of a coordinate :math:`x`, entry :math:`2k` is
    :math:`\sin(2\pi x \cdot 1.2^{k - 32})` and entry :math:`2k + 1` its
    cosine, :math:`k` from 0 to 63.

    Args:
        bboxes (Tensor): Shape (N, 4).

    Returns:
        Tensor: Shape (N, 4 * ``NUM_SINES``), one coordinate after another.
    """
    pairs = NUM_SINES // 2
    exponents = torch.arange(pairs, device=bboxes.device) - pairs // 2
    frequencies = 2 * math.pi * FREQUENCY_RATIO**exponents.double()
    angles = bboxes[..., None] * frequencies.to(bboxes)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
