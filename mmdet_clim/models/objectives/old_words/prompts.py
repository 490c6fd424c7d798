# Licensed under the Apache License, Version 2.0.
"""Old words in a prompt, of detectors that read one with each image."""
from typing import Dict, List, Tuple

import torch
from torch import Tensor

from mmdet_clim.models.families import family_of
from mmdet_clim.models.families.text_conditioned import GroundingDetector
from mmdet_clim.models.grounding_prompts import GroundingPrompt
from mmdet_clim.models.region_readers.dense_feature_reader import evaluating

from ..context import BranchContext
from .responses import Responses


def prompt_responses(teacher: GroundingDetector, context: BranchContext,
                     prompt: GroundingPrompt,
                     num_regions: int) -> List[Responses]:
    """What both detectors say of a prompt's words in the same places.

    Args:
        teacher (GLIP or GroundingDINO): The original.
        context (BranchContext): With the detector that learns.
        prompt (GroundingPrompt): Of old words.
        num_regions (int): Places of each image, those where the original is
            surest of one of the words.

    Returns:
        list[Responses]: One of each layer that the family looks at.
    """
    family = family_of(teacher)
    told, words = _words(teacher, prompt)
    words = words.to(context.images.device)
    samples = context.feats.samples()

    def ask(detector, levels, places=None):
        # In training there would be dropout, and denoising queries, which
        # need boxes.
        with evaluating(detector):
            texts = family.encode(detector, [prompt.text])
            layers, places = family.token_logits(
                # Copies, as a head may write into what it gets.
                detector,
                tuple(level.clone() for level in levels),
                _of_images(texts, len(samples)),
                samples,
                places)
        return [layer[..., told].float() for layer in layers], places

    with torch.no_grad():
        feats = context.reader.extract_feat(teacher, context.images,
                                            context.data_samples)
        wanted, places = ask(teacher, feats.levels)
        sure = (wanted[-1].sigmoid() @ words.t()).amax(2)
        _, best = sure.topk(min(num_regions, sure.shape[1]), dim=1)
    found, _ = ask(context.detector, context.feats.levels, places)
    best = best[..., None].expand(-1, -1, len(told))
    return [
        Responses(*(layer.gather(1, best).flatten(0, 1) for layer in layers),
                  words) for layers in zip(found, wanted)
    ]


def _words(detector: GroundingDetector,
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


def _of_images(texts: Dict[str, Tensor], count: int) -> Dict[str, Tensor]:
    """One encoded prompt for each of some images."""
    return {
        key: value.expand(count, *value.shape[1:])
        for key, value in texts.items()
    }
