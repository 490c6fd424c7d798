# Licensed under the Apache License, Version 2.0.
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Iterator, Sequence

from mmdet.models.detectors import DINO, DeformableDETR
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from ..dense_heads import ZeroShotDenseMixin, ZeroShotLayer
from ..dense_heads.zero_shot_head import compared
from ..region_readers import ExtractedImages
from ..region_readers.other_maps import encoded_before
from .dense_head import AnyDetector


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
def beginning_at(detector: DINO, places: Queries | None) -> Iterator[list]:
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
        with classify.register_forward_hook(
                lambda module, inputs, logits: chosen.append(logits)):
            of_decoder, of_head = choose(*args, **kwargs)
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


class TransformerFamily(AnyDetector):
    """DETR and what came after it: DINO, DAB-DETR, DDQ and others."""

    detector_type = DetectionTransformer

    def sources(self, detector: DetectionTransformer) -> tuple[str, ...]:
        """See the base class."""
        if isinstance(detector.bbox_head, ZeroShotDenseMixin):
            return ('query', 'encoder', 'neck')
        return ('encoder', 'neck')

    def predict(self, detector: DetectionTransformer, feats: ExtractedImages,
                levels: Sequence[Tensor],
                samples: SampleList) -> list[InstanceData]:
        """See the base class."""
        outputs = feats.seen.get('decoder')
        if outputs is None:
            with encoded_before(detector, feats):
                outputs = detector.forward_transformer(levels, samples)
        return detector.bbox_head.predict(
            **outputs, batch_data_samples=samples, rescale=False)

    def queries(self, detector: DetectionTransformer,
                feats: ExtractedImages) -> tuple[Tensor, Tensor]:
        """Of the decoder's last layer; see the base class.

        What the transformer gave is remembered for the proposals, and what
        classifies the queries.
        """
        with compared(detector.bbox_head) as seen:
            outputs = detector.forward_transformer(feats.levels,
                                                   feats.samples())
            feats.seen['decoder'] = outputs
            _, boxes = detector.bbox_head(**outputs)
        feats.seen['classifier'], vectors = seen[-1]
        return _of_last_layer(vectors), boxes[-1]

    def compares_queries(self, detector: DetectionTransformer) -> bool:
        """Whether its queries have texts as classes and a known beginning.

        Learned ones begin alike in two detectors, those of a DINO where they
        are told to.

        Args:
            detector (DetectionTransformer): The detector.
        """
        if not isinstance(detector.bbox_head, ZeroShotDenseMixin):
            return False
        return _is_dino(detector) or not (isinstance(detector, DeformableDETR)
                                          and detector.as_two_stage)

    def query_vectors(
        self,
        detector: DetectionTransformer,
        levels: Sequence[Tensor],
        samples: SampleList,
        places: Queries | None = None
    ) -> tuple[list[tuple[ZeroShotLayer, Tensor]], Queries | None]:
        """What a detector compares with texts, of its queries.

        Args:
            detector (DetectionTransformer): In evaluation mode, one that
                :meth:`compares_queries`.
            levels (Sequence[Tensor]): The neck's maps (N, C, H, W).
            samples (list[DetDataSample]): N samples.
            places (Queries, optional): What this gave of another detector, to
                begin where that one did.

        Returns:
            tuple: Classifiers and what they compare, (N, Q, D): of where a
            DINO's encoder chose the queries, and of the decoder's last layer;
            and where they began, which learned ones do not tell.
        """
        chosen: list = []
        with ExitStack() as stack:
            seen = stack.enter_context(compared(detector.bbox_head))
            if _is_dino(detector):
                chosen = stack.enter_context(beginning_at(detector, places))
            detector.bbox_head(**detector.forward_transformer(levels, samples))
        classifier, last = seen[-1]
        of_layers = [(classifier, _of_last_layer(last))]
        if not chosen:
            return of_layers, None
        began: Queries = chosen[-1]
        classifier, encoded = seen[0]
        return [(classifier, began.of(encoded)), *of_layers], began


def _of_last_layer(vectors: Tensor) -> Tensor:
    """Some heads classify all layers of the decoder at once."""
    return vectors[-1] if vectors.dim() == 4 else vectors


def _is_dino(detector: DetectionTransformer) -> bool:
    """Whether queries are chosen as by a DINO, unlike a DDQ's."""
    return isinstance(detector,
                      DINO) and type(detector).pre_decoder is DINO.pre_decoder
