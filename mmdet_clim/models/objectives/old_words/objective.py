# Licensed under the Apache License, Version 2.0.
import copy
from pathlib import Path
from typing import Sequence

import torch
from mmdet.models.detectors.grounding_dino import clean_label_name
from torch import Tensor, nn

from mmdet_clim.checks import check_range
from mmdet_clim.registry import MODELS

from ...class_texts import ClassTexts
from ...families import family_of
from ...families.text_conditioned import TextConditionedFamily
from ...families.transformer import TransformerFamily
from ...grounding_prompts import GroundingPrompt, clean_phrase
from ...region_readers import BaseRegionReader
from ...text_encoders import DEFAULT_TEMPLATES, BaseTextEncoder, Templates
from ..base import BaseObjective, BranchContext
from .responses import (
    Responses,
    classifiers_of,
    prompt_responses,
    query_responses,
    region_responses,
)


@MODELS.register_module()
class OldWordsObjective(BaseObjective):
    r"""Keep a detector's responses to the words that it knew.

    The original detector, frozen, looks at the same images, and both are
    compared in the places that it finds; with :math:`p` the original's
    probability of an old word and :math:`q` the learning one's, the loss is
    the divergence of Bernoulli distributions

    .. math:: p \log\frac{p}{q} + (1 - p) \log\frac{1 - p}{1 - q},

    summed over words and averaged over places: 0 as long as nothing has
    changed. What the detector says of other words is free.

    Places and probabilities are those of

    - regions that the original proposes, which both read, in a detector
      that compares them with texts;
    - queries of a DETR or DINO with a zero-shot head. Those of a DINO begin
      where the original's do, and it is compared where its encoder chooses
      them, too;
    - queries of a Grounding DINO, likewise, or positions of a GLIP, with old
      words and those that are learned as the prompt, since the words of a
      prompt change what is seen. A word's divergence is the mean of its
      tokens'. Words that one prompt has no room for are drawn a prompt at a
      time.

    Args:
        detector (dict): Config of the plain detector.
        checkpoint (str): The original weights.
        vocabulary: Anything that ``build_vocabulary`` reads: the old words.
        templates (str or Sequence[str]): See ``resolve_templates``; those
            of the detector's classifier, where it has one.
        new_words (Sequence[str]): Those that are learned, which stand in
            prompts between the old ones.
        num_regions (int): Places per image, the best by score.
        loss_weight (float): Weight of the loss.

    Raises:
        ValueError: If ``num_regions`` is not positive or ``loss_weight``
            negative.
    """

    def __init__(self,
                 detector: dict,
                 checkpoint: str,
                 vocabulary,
                 templates: Templates = DEFAULT_TEMPLATES,
                 new_words: Sequence[str] = (),
                 num_regions: int = 64,
                 loss_weight: float = 1.0,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(1, num_regions=num_regions)
        check_range(0, loss_weight=loss_weight)
        self.detector_cfg = detector
        self.checkpoint = checkpoint
        self.classes = ClassTexts(vocabulary, templates)
        self.new_words = new_words
        self.num_regions = num_regions
        self.loss_weight = loss_weight
        # In a tuple: its weights are in no checkpoint, average or gradient.
        self._teacher: tuple[nn.Module, ...] = ()
        self._prompts: list[GroundingPrompt] = []

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: BaseTextEncoder | None) -> None:
        """Raise a TypeError unless regions are read as they are classified."""
        family = family_of(detector)
        if classifiers_of(detector) and isinstance(family, TransformerFamily):
            if family.compares_queries(detector):
                return
            raise TypeError(
                f'objectives.{name}: an OldWordsObjective compares queries of '
                'two detectors, which have to begin alike: expected a DINO or '
                'a detector whose queries are learned, got a two-stage '
                f'{type(detector).__name__}, which chooses them by its own '
                'scores')
        if not (family.reads_texts
                or classifiers_of(detector) and not list(reader.parameters())):
            raise TypeError(
                f'objectives.{name}: an OldWordsObjective compares what a '
                'zero-shot head says of regions, or a grounding detector of '
                f'its prompt, got {type(detector).__name__} without one, or '
                f'of which a {type(reader).__name__} reads other embeddings')

    def losses(self, context: BranchContext) -> dict[str, Tensor]:
        """The divergence in the places of a batch.

        Returns:
            dict: ``loss``, and ``kept``, of the places in which the original
            is surest of an old word the share, in percent, where the learning
            detector is surest of the same one.
        """
        responses = self._responses(context)
        return dict(
            loss=self.loss_weight * sum(of.loss() for of in responses),
            kept=responses[-1].kept())

    def _responses(self, context: BranchContext) -> list[Responses]:
        """What both detectors say, in each stage or layer."""
        teacher = self.teacher(context.images.device)
        family = family_of(teacher)
        if isinstance(family, TextConditionedFamily):
            if not self._prompts:
                self._prompts = self._make_prompts(family, teacher)
            prompt = self._prompts[torch.randint(len(self._prompts), ())]
            return prompt_responses(family, teacher, context, prompt,
                                    self.num_regions)
        if isinstance(family, TransformerFamily):
            return query_responses(family, teacher, context, self.classes,
                                   self.num_regions)
        return region_responses(teacher, context, self.classes,
                                self.num_regions)

    def _make_prompts(self, family: TextConditionedFamily,
                      teacher: nn.Module) -> list[GroundingPrompt]:
        """Prompts with old words, and new ones evenly between them."""
        old = self.classes.vocabulary.names
        new = [name for name in self.new_words if name not in old]
        words = sorted(((number + 0.5) / len(group), name, group is old)
                       for group in (old, new)
                       for number, name in enumerate(group))
        prompts = family.prompts(
            [clean_phrase(clean_label_name(name)) for _, name, _ in words],
            teacher.language_model.tokenizer, family.max_tokens(teacher))
        for prompt in prompts:
            prompt.spans = {
                index: span
                for index, span in prompt.spans.items() if words[index][2]
            }
        return [prompt for prompt in prompts if prompt.spans]

    def teacher(self, device: torch.device) -> nn.Module:
        """The original detector, built when first asked for.

        Args:
            device (torch.device): Where to have it.
        """
        if not self._teacher:
            from mmdet_clim.engine.checkpoints import load_weights
            # Detection transformers write into their configs.
            model = MODELS.build(copy.deepcopy(self.detector_cfg))
            load_weights(model, Path(self.checkpoint))
            self._teacher = (model.eval().requires_grad_(False), )
        return self._teacher[0].to(device)
