# Licensed under the Apache License, Version 2.0.
from typing import Dict, List, Optional, Tuple

import torch
from mmdet.models.detectors.grounding_dino import clean_label_name
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim.models.connected_zero import connected_zero
from mmdet_clim.models.families import family_of
from mmdet_clim.models.grounding_prompts import clean_phrase
from mmdet_clim.models.region_readers import BaseRegionReader
from mmdet_clim.models.text_encoders import BaseTextEncoder
from mmdet_clim.registry import MODELS

from ..base import BaseObjective
from ..composition import compose_tiles, union_boxes
from ..context import BranchContext
from .data import grounding_samples, nothing_to_find

TEXTS = ('captions', 'tags')
MATCHES = ('box', 'text')


@MODELS.register_module()
class GroundingObjective(BaseObjective):
    """A mosaic as grounding data, for GLIP and Grounding DINO.

    The targets are the tile boxes and rectangles of several tiles. The
    phrases to be found are one caption drawn per tile, or the names of the
    tiles' tags; a rectangle is found by those of all its tiles. An image that
    stands in several tiles is found in each by the captions of all of them
    (REFERENCE.md, section 2: a region goes with the captions of its image),
    and phrases that differ in capitals alone are one. The phrases of a mosaic
    make one prompt, or several where the language model would cut it; then a
    box is looked for with those that hold its phrases. The losses are the
    detector's own.

    With ``match='text'`` a tile is no object but a place where to look: each
    of its phrases goes to the query inside it that reads the phrase best, and
    the tile's other queries are not told that the phrase is absent. Matched
    by boxes, as with ``'box'``, a phrase goes to the query that is most like
    the tile, background and all, and the query on the object is trained as a
    negative of the object's own name.

    Args:
        texts (str): ``'captions'`` or ``'tags'``.
        vocabulary (optional): Anything that ``build_vocabulary`` reads: the
            classes which the tags index.
        num_negatives (int): With tags, names of other classes that stand in
            the prompt too.
        num_compositions (int): Rectangles per mosaic; none with
            ``match='text'``, to which they would tell nothing new.
        match (str): ``'box'``, or ``'text'``, which Grounding DINO takes and
            GLIP, that has no queries, does not.
        loss_weight (float): Of the losses on which text a box belongs to.
        box_weight (float): Of the losses on where a box is. Tiles are no
            objects; 0 keeps the detector's boxes to what annotated boxes
            teach. With ``match='text'`` there is no such loss.

    Raises:
        ValueError: If an argument is out of its range, or tags have no
            vocabulary.
    """

    def __init__(self,
                 texts: str = 'captions',
                 vocabulary=None,
                 num_negatives: int = 0,
                 num_compositions: int = 4,
                 match: str = 'box',
                 loss_weight: float = 1.0,
                 box_weight: float = 1.0,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if texts not in TEXTS:
            raise ValueError(f'texts: expected one of {TEXTS}, got {texts!r}')
        if match not in MATCHES:
            raise ValueError(
                f'match: expected one of {MATCHES}, got {match!r}')
        if texts == 'tags' and vocabulary is None:
            raise ValueError("vocabulary: texts='tags' needs one, got None")
        for key, value in dict(
                num_negatives=num_negatives,
                num_compositions=num_compositions).items():
            if value < 0:
                raise ValueError(f'{key}: expected a count >= 0, got {value}')
        if match == 'text' and num_compositions:
            raise ValueError("num_compositions: expected 0 with match='text', "
                             f'got {num_compositions}')
        self.texts = texts
        # As mmdet writes the names into its own prompts.
        self.names = [] if vocabulary is None else [
            clean_phrase(clean_label_name(name))
            for name in build_vocabulary(vocabulary).names
        ]
        self.num_negatives = num_negatives
        self.num_compositions = num_compositions
        self.match = match
        self.loss_weight = loss_weight
        self.box_weight = box_weight

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: Optional[BaseTextEncoder]) -> None:
        """Raise a TypeError unless the detector takes grounding data."""
        family = family_of(detector)
        if not family.reads_texts:
            raise TypeError(
                'GroundingObjective trains a GLIP or a Grounding DINO, which '
                'have a GroundingReader, got a detector with a '
                f'{type(reader).__name__}')
        if self.match not in family.matches:
            raise TypeError(f'match={self.match!r}: expected a Grounding DINO,'
                            ' got a GLIP, which has no queries')

    def losses(self, context: BranchContext) -> Dict[str, Tensor]:
        """The detector's losses on the mosaics of a batch.

        Returns:
            dict: ``loss`` and ``box_loss``, and how many ``prompts`` there
            were.
        """
        detector, feats = context.detector, context.feats
        family = family_of(detector)
        samples, images = [], []
        for image, data_sample in enumerate(context.data_samples):
            phrases, boxes, positives = self.targets(data_sample)
            found = grounding_samples(
                family.prompts(detector, phrases), boxes, positives,
                dict(data_sample.metainfo, batch_input_shape=feats.size))
            samples.extend(found)
            images.extend([image] * len(found))
        told = len(samples)
        if not told:
            # The detector's losses count boxes over all ranks, of which
            # others may have phrases: every rank has to run them. (GLIP
            # counts an image without a box as one positive anchor, here as
            # in mmdet's own training; Grounding DINO counts none.)
            images = [0]
            samples = [
                nothing_to_find(
                    family, detector,
                    dict(
                        context.data_samples[0].metainfo,
                        batch_input_shape=feats.size))
            ]
        # Under DDP every rank must reach the same parameters.
        every_part = told and self.match == 'box'
        zero = connected_zero(
            [context.reader] if every_part else [context.reader, detector])
        levels = tuple(level[images] for level in feats.levels)
        losses = family.losses(detector, levels, samples, self.match)
        text_loss = _total(losses, lambda key: 'loss_cls' in key, zero)
        box_loss = _total(losses, lambda key: 'loss_cls' not in key, zero)
        if not told:
            text_loss, box_loss = text_loss * 0, box_loss * 0
        return dict(
            loss=self.loss_weight * text_loss,
            box_loss=self.box_weight * box_loss,
            prompts=text_loss.new_full((), told))

    def targets(
            self,
            data_sample: DetDataSample) -> Tuple[List[str], Tensor, Tensor]:
        """Phrases, regions, and which region shows which phrase.

        Args:
            data_sample (DetDataSample): A packed mosaic of K tiles.

        Returns:
            tuple: P distinct phrases, boxes (n, 4) in absolute xyxy pixels,
            and bool (n, P). Boxes that no phrase tells of are left out; with
            ``match='text'`` each has one phrase.
        """
        tiles = data_sample.gt_instances.bboxes
        of_tile = self._tile_phrases(data_sample)
        # To an uncased language model, two that differ in capitals are one.
        spelled: Dict[str, str] = {}
        for phrase in (p for tile in of_tile for p in tile):
            spelled.setdefault(phrase.lower(), phrase)
        place = {lowered: index for index, lowered in enumerate(spelled)}
        phrases = list(spelled.values())
        if phrases and self.texts == 'tags':
            phrases += self._negatives(phrases)
        shows = torch.zeros(len(tiles), len(phrases), dtype=torch.bool)
        for row, tile in zip(shows, of_tile):
            row[[place[phrase.lower()] for phrase in tile]] = True
        keys = torch.tensor(data_sample.image_keys)
        members = torch.cat([
            torch.eye(len(tiles), dtype=torch.bool),
            compose_tiles(data_sample.mosaic_grid, self.num_compositions)
        ])
        same_image = keys[:, None] == keys
        positives = (members.float() @ same_image.float() @ shows.float()) > 0
        boxes = union_boxes(tiles, members)
        if self.match == 'text':
            # A phrase of a tile is a target of its own.
            region, phrase = positives.nonzero(as_tuple=True)
            return (phrases, boxes[region],
                    torch.eye(len(phrases), dtype=torch.bool)[phrase])
        told = positives.any(1)
        return phrases, boxes[told], positives[told]

    def _tile_phrases(self, data_sample: DetDataSample) -> List[List[str]]:
        if self.texts == 'captions':
            return [_draw(of_tile) for of_tile in data_sample.captions]
        return [[self.names[tag] for tag in tags] for tags in data_sample.tags]

    def _negatives(self, phrases: List[str]) -> List[str]:
        """Names of classes that the mosaic does not show."""
        shown = {phrase.lower() for phrase in phrases}
        others = [name for name in self.names if name.lower() not in shown]
        chosen = torch.randperm(len(others))[:self.num_negatives]
        return [others[index] for index in chosen.tolist()]


def _draw(captions: List[str]) -> List[str]:
    """One of a tile's captions, or none where all are nothing but marks."""
    clean = [phrase for phrase in map(clean_phrase, captions) if phrase]
    return [clean[torch.randint(len(clean), ())]] if clean else []


def _total(losses: dict, keep, zero: Tensor) -> Tensor:
    """Sum of the losses whose names are kept; some heads give lists."""
    values = [value for key, value in losses.items() if keep(key)]
    return sum([
        torch.stack(list(value)).sum() if isinstance(value,
                                                     (list,
                                                      tuple)) else value.sum()
        for value in values
    ], zero)
