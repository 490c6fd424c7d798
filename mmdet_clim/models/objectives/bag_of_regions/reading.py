# Licensed under the Apache License, Version 2.0.
"""Bags of regions as sentences of pseudo-words."""
import math
from dataclasses import dataclass

import torch
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor, nn

from mmdet_clim.checks import check_range

from ...pseudo_words import draw_kept, write_sentences
from ...text_encoders import BaseTextEncoder
from ..tile_batch import Regions

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


# Of so many draws for each order, those that are alike are left out.
DRAWS = 4


@dataclass
class SampledBags(Regions):
    """The regions that an objective took from the images, in bags.

    A region is read once, whatever the number of its bags.

    Args:
        rois, image, members: As of :class:`Regions`.
        bags (Tensor): bool (B, R): which regions each bag holds, at least
            one.
        bag_rois (Tensor): Shape (B, 5): the image of each bag, and the box,
            absolute xyxy, that the positions of its regions are relative to.
        is_core (Tensor): bool (R,): which regions go last where a bag is too
            long for the text encoder.
        is_composed (Tensor): bool (B,): which bags are of several tiles.
        bag_keys (Tensor, optional): int64 (B, M), on the host: the keys of
            the images in the tiles of each bag, the first one again where a
            bag has fewer.
    """

    bags: Tensor
    bag_rois: Tensor
    is_core: Tensor
    is_composed: Tensor
    bag_keys: Tensor | None = None

    @property
    def composed(self) -> Tensor:
        """Boxes of the bags of several tiles, (m, 4) of ``bag_rois``."""
        return self.bag_rois[self.is_composed.to(self.bag_rois.device), 1:]


class BagReader(nn.Module):
    """Writes bags as sentences and has the text encoder read them.

    The pseudo-words of a region, plus learned vectors of its box relative to
    the bag's, one per word; the regions of a bag in random order, its words
    dropped at random, though never all of a region; all of it in a few orders
    per bag (REFERENCE.md, section 3). The sentences of a step are written
    without a loop over bags, padded to the longest, and read at once.

    A bag of more regions than there is room for keeps the core regions
    first, and others drawn at random.

    Args:
        word_dim (int): Width of the text encoder's word vectors.
        num_words (int): Pseudo-words of a region, as of the box head's
            :class:`PseudoWordClassifier`.
        num_orders (int): Different orders in which a bag is read, fewer where
            a bag has fewer.
        drop_prob (float): Chance of a word to be dropped.
        max_regions (int, optional): The most that a bag keeps. Defaults to
            what always fits in the text encoder.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self,
                 word_dim: int,
                 num_words: int = 4,
                 num_orders: int = 4,
                 drop_prob: float = 0.5,
                 max_regions: int | None = None) -> None:
        super().__init__()
        check_range(1, word_dim=word_dim, num_words=num_words)
        check_range(1, num_orders=num_orders, max_regions=max_regions)
        check_range(0, 1, drop_prob=drop_prob)
        self.word_dim = word_dim
        self.num_words = num_words
        self.num_orders = num_orders
        self.drop_prob = drop_prob
        self.max_regions = max_regions
        self.position = BoxPosition(num_words, word_dim)

    def check(self, text_encoder: BaseTextEncoder) -> None:
        """Refuse a text encoder that can not read the bags.

        Args:
            text_encoder (BaseTextEncoder): Takes words.

        Raises:
            TypeError: If it takes no words.
            ValueError: If its words have another width, or its sentences do
                not hold one region, or not ``max_regions``.
        """
        if text_encoder.word_dim != self.word_dim:
            raise ValueError(
                f'word_dim: expected {text_encoder.word_dim}, the width of '
                f"the text encoder's words, got {self.word_dim}")
        room = text_encoder.max_words // self.num_words
        if room < (self.max_regions or 1):
            raise ValueError(
                f'max_regions: the text encoder takes '
                f'{text_encoder.max_words} words, {room} regions of '
                f'num_words={self.num_words}, got {self.max_regions or 1}')

    def forward(self, embeddings: Tensor, sampled: SampledBags,
                text_encoder: BaseTextEncoder) -> tuple[Tensor, Tensor]:
        """Read the bags of all images.

        Args:
            embeddings (Tensor): Pseudo-words (R, num_words * word_dim) of the
                regions.
            sampled (SampledBags): The regions and their bags.
            text_encoder (BaseTextEncoder): Takes words.

        Returns:
            tuple[Tensor, Tensor]: Unit vectors (S, D), one per order of a
            bag, and which bag each is of (S,), counted over all images.

        Raises:
            ValueError: If the embeddings are no pseudo-words of the text
                encoder.
        """
        room = self._room(embeddings, text_encoder)
        words = embeddings.unflatten(1, (self.num_words, -1))
        bag, region, boxes = self._places(sampled, room)
        positions = self.position(boxes)
        sentence, entry, sentence_bag = self._order(bag)
        words = words[region[entry]] + positions[entry]
        kept = draw_kept(
            len(entry), self.num_words, self.drop_prob, words.device)
        written, lengths = write_sentences(
            words[kept], sentence.repeat_interleave(kept.sum(1)),
            len(sentence_bag))
        return text_encoder.encode_words(written, lengths), sentence_bag

    def _room(self, embeddings: Tensor, text_encoder: BaseTextEncoder) -> int:
        """Regions that a sentence holds."""
        width = self.num_words * self.word_dim
        if embeddings.shape[1] != width:
            raise ValueError(
                f'embeddings: expected {self.num_words} pseudo-words of '
                f'{text_encoder.word_dim}, {width} in all, got '
                f'{embeddings.shape[1]}. Does the box head classify by '
                'PseudoWordClassifier with the same num_words and text '
                'encoder?')
        return self.max_regions or text_encoder.max_words // self.num_words

    def _places(self, sampled: SampledBags,
                room: int) -> tuple[Tensor, Tensor, Tensor]:
        """Every place of a region in a bag.

        Returns:
            tuple[Tensor, Tensor, Tensor]: The bag (E,) and the region (E,) of
            each place, sorted by bag, and the region's box there (E, 4), see
            :func:`relative_boxes`.
        """
        bag, region = sampled.bags.nonzero(as_tuple=True)
        chance = torch.rand(len(bag), device=bag.device)
        number = number_in_group(bag,
                                 chance - sampled.is_core[region].to(chance))
        kept = (number < room).nonzero().flatten()
        bag, region = bag[kept], region[kept]
        boxes = relative_boxes(sampled.bboxes[region], sampled.bag_rois[bag,
                                                                        1:])
        return bag, region, boxes

    def _order(self, bag: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the orders of every bag, no two of them alike.

        Args:
            bag (Tensor): Shape (E,), the bag of each place, sorted.

        Returns:
            tuple[Tensor, Tensor, Tensor]: The sentence (N,) and the place
            (N,) of every region in every sentence, sorted by sentence and by
            order in it; and the bag of each sentence (S,).
        """
        drawn = 1 if self.num_orders == 1 else DRAWS * self.num_orders
        draw = torch.arange(drawn, device=bag.device)
        group = (bag[:, None] * drawn + draw).flatten()
        chance = torch.rand(len(group), device=bag.device)
        place = number_in_group(group, chance).view(-1, drawn)
        # In how many places two draws differ, of each bag.
        differ = (place[:, :, None] != place[:, None]).int()
        num_bags = int(bag[-1]) + 1 if len(bag) else 0
        apart = differ.new_zeros(num_bags, drawn,
                                 drawn).index_add(0, bag, differ) > 0
        kept = (apart | (draw[:, None] <= draw)).all(2)
        kept &= kept.cumsum(1) <= self.num_orders
        sentence_bag, _ = kept.nonzero(as_tuple=True)
        number = (kept.flatten().cumsum(0) - 1).view_as(kept)
        entry, draw = kept[bag].nonzero(as_tuple=True)
        sentence = number[bag[entry], draw]
        order = (sentence * (len(bag) + 1) + place[entry, draw]).argsort()
        return sentence[order], entry[order], sentence_bag


def number_in_group(group: Tensor, key: Tensor) -> Tensor:
    """Number the members of each group by ascending key, from 0.

    Args:
        group (Tensor): int64 (N,), from 0.
        key (Tensor): Shape (N,).

    Returns:
        Tensor: int64 (N,).
    """
    order = key.argsort()
    order = order[group[order].argsort(stable=True)]
    sizes = group.bincount()
    first = sizes.cumsum(0) - sizes
    number = torch.empty_like(group)
    number[order] = torch.arange(
        len(group), device=group.device) - first[group[order]]
    return number


def relative_boxes(bboxes: Tensor, frames: Tensor) -> Tensor:
    """Boxes in units of the frames they lie in.

    Args:
        bboxes (Tensor): Shape (N, 4), absolute xyxy.
        frames (Tensor): Shape (N, 4), absolute xyxy.

    Returns:
        Tensor: Shape (N, 4), centre, width and height, normalised to [0, 1].
    """
    corner = frames[:, :2].repeat(1, 2)
    size = (frames[:, 2:] - frames[:, :2]).repeat(1, 2)
    return bbox_xyxy_to_cxcywh((bboxes - corner) / size.clamp(min=1e-6))
