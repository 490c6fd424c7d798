# Licensed under the Apache License, Version 2.0.
"""What a mosaic tells a grounding detector, worked out on the host alone."""
import hashlib
from typing import Any, NamedTuple, Sequence

import numpy as np
import torch
from mmdet.models.detectors.glip import create_positive_map
from mmdet.models.detectors.grounding_dino import clean_label_name
from mmdet.structures import DetDataSample
from torch import Tensor

from mmdet_clim.checks import check_choice, check_range
from mmdet_clim.datasets.vocabulary import build_vocabulary

from ...families.text_conditioned import TextConditionedFamily
from ...grounding_prompts import GroundingPrompt, clean_phrase
from ..tile_batch import check_tags, compose_tiles

TEXTS = ('captions', 'tags')
MATCHES = ('box', 'text')


class ToldPrompt(NamedTuple):
    """A prompt of L tokens and the n regions of a mosaic that it tells of.

    Arrays, as tensors would each take a file from a worker of a data loader
    to its main process.
    """

    text: str
    #: int64 (L,), the tokens with those of start and end.
    ids: np.ndarray
    #: bool (n, K), the tiles that each region consists of.
    members: np.ndarray
    #: bool (n, L), the tokens of the phrases that a region shows.
    positive: np.ndarray


class GroundingTargets:
    """Which phrases tell of which regions of a mosaic.

    Args:
        texts, vocabulary, num_negatives, num_compositions, match: See
            :class:`~.objective.GroundingObjective`.

    Raises:
        ValueError: If an argument is out of its range, or tags have no
            vocabulary.
    """

    def __init__(self, texts: str, vocabulary: Any, num_negatives: int,
                 num_compositions: int, match: str) -> None:
        check_choice(TEXTS, texts=texts)
        check_choice(MATCHES, match=match)
        if texts == 'tags' and vocabulary is None:
            raise ValueError("vocabulary: texts='tags' needs one, got None")
        check_range(
            0, num_negatives=num_negatives, num_compositions=num_compositions)
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

        self._settings = hashlib.sha256(
            repr(sorted(vars(self).items())).encode()).hexdigest()

    def key(self, tokenizer: Any, max_tokens: int) -> str:
        """By which prompts of these settings and this reading are known."""
        return f'{self._settings} {tokenizer.name_or_path} {max_tokens}'

    def __call__(
            self,
            data_sample: DetDataSample) -> tuple[list[str], Tensor, Tensor]:
        """Phrases, regions, and which region shows which phrase.

        Args:
            data_sample (DetDataSample): A packed mosaic of K tiles.

        Returns:
            tuple: P distinct phrases, the tiles of each region, bool (n, K),
            and its phrases, bool (n, P). Regions that no phrase tells of are
            left out; with ``match='text'`` each has one phrase.
        """
        of_tile = self._tile_phrases(data_sample)
        # To an uncased language model, two that differ in capitals are one.
        spelled: dict[str, str] = {}
        for phrase in (p for tile in of_tile for p in tile):
            spelled.setdefault(phrase.lower(), phrase)
        place = {lowered: index for index, lowered in enumerate(spelled)}
        phrases = list(spelled.values())
        if phrases and self.texts == 'tags':
            phrases += self._negatives(phrases)
        shows = torch.zeros(len(of_tile), len(phrases), dtype=torch.bool)
        for row, tile in zip(shows, of_tile):
            row[[place[phrase.lower()] for phrase in tile]] = True
        keys = torch.tensor(data_sample.image_keys)
        drawn = compose_tiles(data_sample.mosaic_grid, self.num_compositions)
        members = torch.cat([torch.eye(len(of_tile), dtype=torch.bool), drawn])
        same_image = keys[:, None] == keys
        positives = (members.float() @ same_image.float() @ shows.float()) > 0
        if self.match == 'text':
            # A phrase of a tile is a target of its own.
            region, phrase = positives.nonzero(as_tuple=True)
            return (phrases, members[region],
                    torch.eye(len(phrases), dtype=torch.bool)[phrase])
        told = positives.any(1)
        return phrases, members[told], positives[told]

    def prompts(self, data_sample: DetDataSample,
                family: TextConditionedFamily, tokenizer: Any,
                max_tokens: int) -> list[ToldPrompt]:
        """The same as prompts of a detector, by its tokens.

        Args:
            data_sample (DetDataSample): A packed mosaic.
            family (TextConditionedFamily): Of the detector.
            tokenizer: Of its language model.
            max_tokens (int): Of the longest prompt.
        """
        phrases, members, positives = self(data_sample)
        made = family.prompts(phrases, tokenizer, max_tokens)
        return tell(made, members, positives, tokenizer)

    def _tile_phrases(self, data_sample: DetDataSample) -> list[list[str]]:
        if self.texts == 'captions':
            return [_draw(of_tile) for of_tile in data_sample.captions]
        check_tags(data_sample.tags, len(self.names))
        return [[self.names[tag] for tag in tags] for tags in data_sample.tags]

    def _negatives(self, phrases: list[str]) -> list[str]:
        """Names of classes that the mosaic does not show."""
        shown = {phrase.lower() for phrase in phrases}
        others = [name for name in self.names if name.lower() not in shown]
        chosen = torch.randperm(len(others))[:self.num_negatives]
        return [others[index] for index in chosen.tolist()]


def _draw(captions: list[str]) -> list[str]:
    """One of a tile's captions, or none where all are nothing but marks."""
    clean = [phrase for phrase in map(clean_phrase, captions) if phrase]
    return [clean[torch.randint(len(clean), ())]] if clean else []


def tell(prompts: Sequence[GroundingPrompt], members: Tensor,
         positives: Tensor, tokenizer: Any) -> list[ToldPrompt]:
    """Which region of an image is found by which tokens of which prompt.

    A region stands in every prompt that holds one of its phrases or a part
    of it; a prompt without a region is left out.

    Args:
        prompts (Sequence[GroundingPrompt]): Of the image's phrases.
        members (Tensor): bool (n, K): the tiles of each region.
        positives (Tensor): bool (n, P): which region shows which phrase.
        tokenizer: Of the detector's language model.
    """
    shown = [row.nonzero().flatten().tolist() for row in positives]
    told = []
    for prompt in prompts:
        spans = [[
            span for index in of_region
            for span in prompt.spans.get(index, [])
        ] for of_region in shown]
        rows = [row for row, of_row in enumerate(spans) if of_row]
        if rows:
            of_rows = [spans[row] for row in rows]
            told.append(tell_one(prompt, members[rows], of_rows, tokenizer))
    return told


def tell_one(prompt: GroundingPrompt, members: Tensor,
             spans: Sequence[Sequence[Sequence[int]]],
             tokenizer: Any) -> ToldPrompt:
    """One prompt, by the characters ``[begin, end]`` of each region."""
    tokens = tokenizer([prompt.text], return_tensors='np')
    ids = tokens['input_ids'][0]
    positive = create_positive_map(tokens, spans, max_num_entities=len(ids))
    return ToldPrompt(prompt.text, ids, members.numpy(),
                      positive.bool().numpy())
