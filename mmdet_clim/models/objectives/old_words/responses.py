# Licensed under the Apache License, Version 2.0.
"""What two detectors say of old words in the same places."""
from dataclasses import dataclass
from typing import Any, Callable

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox2roi
from torch import Tensor, nn

from ...class_texts import ClassTexts
from ...families.text_conditioned import TextConditionedFamily
from ...families.transformer import TransformerFamily
from ...grounding_prompts import GroundingPrompt
from ...modes import evaluating
from ...roi_heads import PseudoWordClassifier, ZeroShotClassifier
from ...text_encoders import BaseTextEncoder
from ..base import BranchContext


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
    words: Tensor | None = None
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
               words: Tensor | None = None) -> Tensor:
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


def classifiers_of(detector: nn.Module) -> list[ZeroShotClassifier]:
    """The classifiers by text, of each stage.

    Args:
        detector (nn.Module): Any detector.
    """
    return [m for m in detector.modules() if isinstance(m, ZeroShotClassifier)]


def region_responses(teacher: nn.Module, context: BranchContext,
                     classes: ClassTexts, num_regions: int) -> list[Responses]:
    """What both detectors read in regions that the original proposes.

    Args:
        teacher (nn.Module): The original.
        context (BranchContext): With the detector that learns.
        classes (ClassTexts): The old words.
        num_regions (int): Regions of each image, the best ones.

    Returns:
        list[Responses]: One of each stage.
    """
    reader = context.reader
    with torch.no_grad():
        feats = reader.extract_feat(teacher, context.images,
                                    context.data_samples)
        proposals = reader.propose(teacher, feats)
        rois = bbox2roi([found.bboxes[:num_regions] for found in proposals])
        of_teacher = reader.stages(teacher, feats)
        before = [stage.read_as_text(rois) for stage in of_teacher]
        texts = classes(_encoder(teacher, context)).to(rois.device)
        wanted = _log_odds(teacher, before, texts)
    stages = context.stages
    # In training, words of regions are dropped.
    with evaluating(context.detector):
        after = [stage.read_as_text(rois) for stage in stages]
    found = _log_odds(context.detector, after, texts)
    return [
        Responses(learned, known, weight=stage.weight)
        for stage, learned, known in zip(stages, found, wanted)
    ]


def _encoder(teacher: nn.Module, context: BranchContext) -> BaseTextEncoder:
    """What embeds the classes: of words, the one that reads the regions."""
    classifier, *_ = classifiers_of(teacher)
    if isinstance(classifier, PseudoWordClassifier):
        return classifier.text_encoder
    return context.text_encoder


def _log_odds(detector: nn.Module, vectors: list[Tensor],
              texts: Tensor) -> list[Tensor]:
    """What a detector's classifiers say of texts, per stage (R, C)."""
    classifiers = classifiers_of(detector)
    if len(classifiers) != len(vectors):
        classifiers = classifiers[:1] * len(vectors)
    return [
        classifier.text_log_odds(of_stage, texts)
        for classifier, of_stage in zip(classifiers, vectors)
    ]


#: A detector, its maps, and where to look, to the logits (N, P, T) of its
#: layers and where it looked.
Ask = Callable[[nn.Module, tuple[Tensor, ...], Any], tuple[list[Tensor], Any]]


def prompt_responses(family: TextConditionedFamily, teacher: nn.Module,
                     context: BranchContext, prompt: GroundingPrompt,
                     num_regions: int) -> list[Responses]:
    """What two grounding detectors say of a prompt's words.

    Args:
        family (TextConditionedFamily): Theirs.
        teacher (GLIP or GroundingDINO): The original.
        context (BranchContext): With the detector that learns.
        prompt (GroundingPrompt): With spans of old words alone.
        num_regions (int): Places of each image.

    Returns:
        list[Responses]: One of each layer that the family looks at.
    """
    samples = context.feats.samples()
    told, words = _words(teacher, prompt)

    def ask(detector, levels, places):
        texts = family.encode(detector, [prompt.text] * len(samples))
        layers, places = family.token_logits(detector, levels, texts, samples,
                                             places)
        return [layer[..., told].float() for layer in layers], places

    return _in_the_surest(teacher, context, ask, num_regions,
                          words.to(context.images.device))


def query_responses(family: TransformerFamily, teacher: nn.Module,
                    context: BranchContext, classes: ClassTexts,
                    num_regions: int) -> list[Responses]:
    """What the queries of two DETR-like detectors say of old words.

    Args:
        family (TransformerFamily): Theirs.
        teacher (DetectionTransformer): The original.
        context (BranchContext): With the detector that learns.
        classes (ClassTexts): The old words.
        num_regions (int): Queries of each image.

    Returns:
        list[Responses]: Of a DINO's encoder, and of the decoder.
    """
    samples = context.feats.samples()
    texts = classes(context.text_encoder).to(context.images.device)

    def ask(detector, levels, places):
        layers, places = family.query_vectors(detector, levels, samples,
                                              places)
        return [
            classifier.text_log_odds(vectors.flatten(0, 1),
                                     texts).unflatten(0, vectors.shape[:2])
            for classifier, vectors in layers
        ], places

    return _in_the_surest(teacher, context, ask, num_regions)


def _in_the_surest(teacher: nn.Module,
                   context: BranchContext,
                   ask: Ask,
                   num_regions: int,
                   words: Tensor | None = None) -> list[Responses]:
    """Both detectors, in the places where the original is surest of a word.

    Args:
        teacher (nn.Module): The original.
        context (BranchContext): With the detector that learns.
        ask (Callable): See :data:`Ask`.
        num_regions (int): Places of each image.
        words (Tensor, optional): See :class:`Responses`.
    """
    with torch.no_grad():
        feats = context.reader.extract_feat(teacher, context.images,
                                            context.data_samples)
        wanted, places = ask(teacher, _copied(feats.levels), None)
        sure = wanted[-1].sigmoid()
        sure = (sure if words is None else sure @ words.t()).amax(2)
        _, best = sure.topk(min(num_regions, sure.shape[1]), dim=1)
    levels = _copied(context.feats.levels)
    # In training there would be dropout, and denoising queries, which need
    # boxes.
    with evaluating(context.detector):
        found, _ = ask(context.detector, levels, places)

    def of_best(layer: Tensor) -> Tensor:
        index = best[..., None].expand(-1, -1, layer.shape[2])
        return layer.gather(1, index).flatten(0, 1)

    return [
        Responses(of_best(after), of_best(before), words)
        for after, before in zip(found, wanted)
    ]


def _copied(levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Copies, as a head may write into what it gets."""
    return tuple(level.clone() for level in levels)


def _words(detector: nn.Module,
           prompt: GroundingPrompt) -> tuple[list[int], Tensor]:
    """The T tokens that words are made of, and their shares (C, T)."""
    tokens = detector.language_model.tokenizer([prompt.text],
                                               return_tensors='pt')
    _, positive = detector.get_positive_map(tokens,
                                            list(prompt.spans.values()))
    positive = positive.bool().float()
    told = positive.any(0).nonzero().flatten().tolist()
    positive = positive[:, told]
    return told, positive / positive.sum(1, keepdim=True)
