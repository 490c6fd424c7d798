# Licensed under the Apache License, Version 2.0.
"""What two detectors say of old words in the same places."""
from dataclasses import dataclass
from typing import Optional

import torch.nn.functional as F
from torch import Tensor


@dataclass
class Responses:
    """Logits of R places, of one layer or stage.

    Args:
        logits (Tensor): Shape (R, T), of the learning detector, with
            gradient.
        wanted (Tensor): Shape (R, T), of the original.
        words (Tensor, optional): Share (C, T) of each of the T tokens in C
            words; the rows sum to 1. Without it, each token is a word.
        weight (float): Of the layer's or stage's losses.
    """

    logits: Tensor
    wanted: Tensor
    words: Optional[Tensor] = None
    weight: float = 1.0

    def loss(self) -> Tensor:
        """The weighted divergence."""
        return self.weight * divergence(self.logits, self.wanted, self.words)

    def kept(self) -> Tensor:
        """The share, in percent, of places in which both are of one mind.

        Of those in which the original is surest of one of the words.
        """
        before, after = (
            self._scores(logits.detach())
            for logits in (self.wanted, self.logits))
        if not len(before):
            return before.new_full((), 100.)
        score, word = before.max(1)
        sure = score > 0.5
        if not sure.any():
            return before.new_full((), 100.)
        return 100 * (word == after.argmax(1))[sure].float().mean()

    def _scores(self, logits: Tensor) -> Tensor:
        scores = logits.float().sigmoid()
        return scores if self.words is None else scores @ self.words.t()


def divergence(logits: Tensor,
               wanted: Tensor,
               words: Optional[Tensor] = None) -> Tensor:
    """Kullback-Leibler divergence of Bernoulli distributions.

    Args:
        logits (Tensor): Shape (R, T), with gradient.
        wanted (Tensor): Logits (R, T) of the distributions to come near to.
        words (Tensor, optional): Share (C, T) of each token in each word. Of
            a word, the divergence is the mean of its tokens', as its score is
            that of theirs.

    Returns:
        Tensor: Scalar, the sum over words and mean over R; 0 without places.
    """
    logits, wanted = logits.float(), wanted.float()
    if not len(logits):
        return logits.sum()
    target = wanted.sigmoid()
    each = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
    each = each - F.binary_cross_entropy_with_logits(
        wanted, target, reduction='none')
    if words is not None:
        each = each * words.sum(0)
    return each.sum() / len(logits)
