# Licensed under the Apache License, Version 2.0.
"""Where the queries of a DINO's decoder begin, for two of a kind."""
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator, Optional

from mmdet.models.detectors import DINO
from torch import Tensor


@dataclass
class Queries:
    """Where a decoder's queries begin.

    Args:
        tokens (Tensor): Shape (N, Q), the places of the encoder's map that
            were chosen.
        references (Tensor): Shape (N, Q, 4), relative cxcywh.
    """

    tokens: Tensor
    references: Tensor

    def of(self, encoded: Tensor) -> Tensor:
        """What was chosen (N, Q, C) of what all places have (N, S, C)."""
        index = self.tokens[..., None].expand(-1, -1, encoded.shape[2])
        return encoded.gather(1, index)


@contextmanager
def beginning_at(detector: DINO, places: Optional[Queries]) -> Iterator[list]:
    """Have the decoder's queries begin where others did, or see where.

    Args:
        detector (DINO): Or a Grounding DINO, in evaluation mode.
        places (Queries, optional): Of another detector of its kind.

    Yields:
        list: In the end, the encoder's logits (N, S, T) of all its places,
        and the :class:`Queries`.
    """
    chosen: list = []
    choose = detector.pre_decoder
    classify = detector.bbox_head.cls_branches[detector.decoder.num_layers]

    def pre_decoder(*args, **kwargs):
        handle = classify.register_forward_hook(
            lambda module, inputs, logits: chosen.append(logits))
        try:
            of_decoder, of_head = choose(*args, **kwargs)
        finally:
            handle.remove()
        began = places
        if began is None:
            # As the detector has chosen them.
            tokens = chosen[0].amax(2).topk(detector.num_queries, dim=1)[1]
            began = Queries(tokens, of_decoder['reference_points'])
        chosen.append(began)
        return dict(of_decoder, reference_points=began.references), of_head

    detector.pre_decoder = pre_decoder
    try:
        yield chosen
    finally:
        # The method of the class again.
        del detector.pre_decoder
