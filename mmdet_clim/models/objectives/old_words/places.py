# Licensed under the Apache License, Version 2.0.
"""Old words in places that both detectors look at as a whole."""
from typing import Any, Callable, List, Optional, Tuple

import torch
from torch import Tensor, nn

from mmdet_clim.models.class_texts import ClassTexts
from mmdet_clim.models.families.text_conditioned import TextConditionedFamily
from mmdet_clim.models.families.transformer import TransformerFamily
from mmdet_clim.models.grounding_prompts import GroundingPrompt
from mmdet_clim.models.modes import evaluating

from ..context import BranchContext
from .responses import Responses

#: A detector, its maps, and where to look, to the logits (N, P, T) of its
#: layers and where it looked.
Ask = Callable[[nn.Module, Tuple[Tensor, ...], Any], Tuple[List[Tensor], Any]]


def prompt_responses(family: TextConditionedFamily, teacher: nn.Module,
                     context: BranchContext, prompt: GroundingPrompt,
                     num_regions: int) -> List[Responses]:
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
                    num_regions: int) -> List[Responses]:
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
                   words: Optional[Tensor] = None) -> List[Responses]:
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


def _copied(levels: Tuple[Tensor, ...]) -> Tuple[Tensor, ...]:
    """Copies, as a head may write into what it gets."""
    return tuple(level.clone() for level in levels)


def _words(detector: nn.Module,
           prompt: GroundingPrompt) -> Tuple[List[int], Tensor]:
    """The T tokens that words are made of, and their shares (C, T)."""
    tokens = detector.language_model.tokenizer([prompt.text],
                                               return_tensors='pt')
    _, positive = detector.get_positive_map(tokens,
                                            list(prompt.spans.values()))
    positive = positive.bool().float()
    told = positive.any(0).nonzero().flatten().tolist()
    positive = positive[:, told]
    return told, positive / positive.sum(1, keepdim=True)
