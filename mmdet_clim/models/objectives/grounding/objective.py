# Licensed under the Apache License, Version 2.0.
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from ...connected_zero import connected_zero
from ...families import family_of
from ...families.text_conditioned import (
    GroundingDetector,
    TextConditionedFamily,
)
from ...host import upload
from ...region_readers import BaseRegionReader
from ...text_encoders import BaseTextEncoder
from ..base import BaseObjective, BranchContext
from ..tile_batch import union_boxes
from .targets import GroundingTargets, ToldPrompt, tell_one

# What is looked for where there is nothing to find.
NOTHING = 'object'


def grounding_sample(told: ToldPrompt, tiles: Tensor, width: int,
                     metainfo: dict) -> DetDataSample:
    """One prompt of an image as grounding data.

    Args:
        told (ToldPrompt): The prompt and its regions.
        tiles (Tensor): Shape (K, 4), the image's tiles, absolute xyxy pixels.
        width (int): Tokens that a detector's map of positives has.
        metainfo (dict): Of the image.

    Returns:
        DetDataSample: With ``text`` and ``token_ids``, and ``gt_instances``:
        ``bboxes`` (n, 4), absolute xyxy, ``labels`` (n,), which number the
        boxes, and ``positive_maps`` (n, width), 0 or 1.
    """
    sample = DetDataSample(metainfo=dict(metainfo, text=told.text))
    sample.token_ids = told.ids
    positive = F.pad(
        torch.from_numpy(told.positive), (0, width - len(told.ids)))
    boxes = union_boxes(tiles, upload(torch.from_numpy(told.members), tiles))
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.arange(len(boxes), device=boxes.device),
        positive_maps=upload(positive, boxes).float())
    return sample


def nothing_to_find(family: TextConditionedFamily, detector: GroundingDetector,
                    num_tiles: int) -> ToldPrompt:
    """A prompt that no tile is found by.

    Args:
        family (TextConditionedFamily): Of the detector.
        detector (GLIP or GroundingDINO): The detector.
        num_tiles (int): Of the image.
    """
    tokenizer = detector.language_model.tokenizer
    prompt, = family.prompts([NOTHING], tokenizer, family.max_tokens(detector))
    return tell_one(prompt, torch.zeros(0, num_tiles, dtype=torch.bool), [],
                    tokenizer)


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
    detector's own. Prompts are drawn and tokenised by a
    :class:`TokenizePrompts` in the workers of the data loader; without one,
    here.

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
                 vocabulary: Any = None,
                 num_negatives: int = 0,
                 num_compositions: int = 4,
                 match: str = 'box',
                 loss_weight: float = 1.0,
                 box_weight: float = 1.0,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.targets = GroundingTargets(texts, vocabulary, num_negatives,
                                        num_compositions, match)
        self.match = match
        self.loss_weight = loss_weight
        self.box_weight = box_weight

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: BaseTextEncoder | None) -> None:
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

    def losses(self, context: BranchContext) -> dict[str, Tensor]:
        """The detector's losses on the mosaics of a batch.

        Returns:
            dict: ``loss`` and ``box_loss``, and how many ``prompts`` there
            were.
        """
        detector, feats = context.detector, context.feats
        family = family_of(detector)
        prompts = [(image, prompt)
                   for image, sample in enumerate(context.data_samples)
                   for prompt in self._prompts(sample, detector, family)]
        told = len(prompts)
        if not told:
            # The detector's losses count boxes over all ranks, of which
            # others may have phrases: every rank has to run them. (GLIP
            # counts an image without a box as one positive anchor, here as
            # in mmdet's own training; Grounding DINO counts none.)
            first = context.data_samples[0].gt_instances
            prompts = [(0, nothing_to_find(family, detector, len(first)))]
        images = [image for image, _ in prompts]
        samples = []
        for image, prompt in prompts:
            of_image = context.data_samples[image]
            meta = dict(of_image.metainfo, batch_input_shape=feats.size)
            tiles, width = of_image.gt_instances, family.map_width(detector)
            samples.append(grounding_sample(prompt, tiles.bboxes, width, meta))
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

    def _prompts(self, sample: DetDataSample, detector: GroundingDetector,
                 family: TextConditionedFamily) -> list[ToldPrompt]:
        """Those that a ``TokenizePrompts`` made, or the same made here."""
        tokenizer = detector.language_model.tokenizer
        max_tokens = family.max_tokens(detector)
        if 'prompts' not in sample:
            return self.targets.prompts(sample, family, tokenizer, max_tokens)
        made: dict[str, list[ToldPrompt]] = sample.prompts
        key = self.targets.key(tokenizer, max_tokens)
        if key not in made:
            raise ValueError(
                'mmdet_clim.TokenizePrompts: expected the detector and the '
                'objectives of the model, got some of other settings than '
                f'texts={self.targets.texts!r}, '
                f'num_negatives={self.targets.num_negatives}, '
                f'num_compositions={self.targets.num_compositions}, '
                f'match={self.match!r}, {len(self.targets.names)} names, '
                f'max_tokens={max_tokens} of {tokenizer.name_or_path!r}')
        return made[key]


def _total(losses: dict, keep, zero: Tensor) -> Tensor:
    """Sum of the losses whose names are kept; some heads give lists."""
    values = [value for key, value in losses.items() if keep(key)]
    return sum([
        torch.stack(list(value)).sum() if isinstance(value,
                                                     (list,
                                                      tuple)) else value.sum()
        for value in values
    ], zero)
