# Licensed under the Apache License, Version 2.0.
"""Pseudo-words: vectors in the place of the words of a text."""

import torch
from torch import Tensor


def draw_kept(count: int, num_words: int, drop_prob: float,
              device: torch.device) -> Tensor:
    """Draw which words of each region stay, never none of a region.

    Args:
        count (int): N regions.
        num_words (int): Words of each.
        drop_prob (float): Chance of a word to be dropped.
        device (torch.device): Where to draw.

    Returns:
        Tensor: bool (N, num_words).
    """
    chance = torch.rand(count, num_words, device=device)
    return (chance >= drop_prob) | (chance == chance.amax(1, keepdim=True))


def write_sentences(words: Tensor, sentence: Tensor,
                    num_sentences: int) -> tuple[Tensor, Tensor]:
    """Words one after another as padded sentences.

    Args:
        words (Tensor): Shape (M, W), in the order of the sentences and of the
            words in each.
        sentence (Tensor): int64 (M,), the sentence of each, ascending.
        num_sentences (int): S.

    Returns:
        tuple[Tensor, Tensor]: Words (S, L, W), L of the longest, and the
        lengths (S,).
    """
    lengths = sentence.bincount(minlength=num_sentences)
    first = lengths.cumsum(0) - lengths
    place = torch.arange(len(words), device=words.device) - first[sentence]
    longest = int(lengths.max()) if num_sentences else 0
    blank = words.new_zeros(num_sentences, longest, words.shape[1])
    return blank.index_put((sentence, place), words), lengths


def write_regions(words: Tensor, drop_prob: float) -> tuple[Tensor, Tensor]:
    """Every region as a sentence of its own, some of its words dropped.

    Args:
        words (Tensor): Shape (N, num_words, W).
        drop_prob (float): See :func:`draw_kept`; 0: all words stay.

    Returns:
        tuple[Tensor, Tensor]: Words (N, num_words, W), those that stay first
        and in their order, and the lengths (N,).
    """
    count, num_words, _ = words.shape
    if drop_prob == 0:
        return words, torch.full((count, ), num_words, device=words.device)
    kept = draw_kept(count, num_words, drop_prob, words.device)
    # Of one shape, whatever is dropped: nothing waits, and it compiles.
    order = (~kept).byte().argsort(dim=1, stable=True)
    return words.gather(1, order[..., None].expand_as(words)), kept.sum(1)
