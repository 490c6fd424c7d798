# Licensed under the Apache License, Version 2.0.
from typing import Iterator, Protocol, Sequence, runtime_checkable

from mmcv.transforms import Pad
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary


@runtime_checkable
class TakesVocabulary(Protocol):
    """A part of a detector that classifies by text, such as a box head."""

    vocabulary: Vocabulary

    def set_vocabulary(self,
                       vocabulary,
                       embeddings: Tensor | None = None) -> None:
        """Replace the classes."""


class DetectorFamily:
    """What one family of detectors has of its own; it holds no detector.

    What is here holds for any detector of mmdet; a family overrides what is
    otherwise with its own.
    """

    #: The detectors of the family.
    detector_type: type[nn.Module] = nn.Module
    #: Region readers; the first that can read a detector is its default.
    readers: tuple[type, ...] = ()
    #: Whether it reads its classes with each image; then it is a
    #: ``TextConditionedFamily``.
    reads_texts = False

    def fits(self, detector: nn.Module) -> bool:
        """Whether a detector is of the family."""
        return isinstance(detector, self.detector_type)

    def feature_maps(self, detector: nn.Module,
                     inputs: Tensor) -> Sequence[Tensor]:
        """What the neck gives, or the backbone where there is no neck.

        Args:
            detector (nn.Module): The detector.
            inputs (Tensor): Images (N, 3, H, W).

        Returns:
            tuple[Tensor]: Maps (N, C, h, w), finest first.
        """
        return detector.extract_feat(inputs)

    def sources(self, detector: nn.Module) -> tuple[str, ...]:
        """Where its regions can be read from, the default first.

        See ``DenseFeatureReader`` and ``GroundingReader``.
        """
        return ('neck', )

    def predict(self, detector: nn.Module, feats, levels: Sequence[Tensor],
                samples: SampleList) -> list[InstanceData]:
        """The detector's boxes, from its maps where it can.

        Args:
            detector (nn.Module): In evaluation mode.
            feats (ExtractedImages): What a reader extracted.
            levels (Sequence[Tensor]): Its maps, in the dtype of the weights.
            samples (list[DetDataSample]): Of each image.

        Returns:
            list[InstanceData]: In pixels of the network's input.
        """
        predictions = detector.predict(feats.inputs, samples, rescale=False)
        return [sample.pred_instances for sample in predictions]

    def queries(self, detector: nn.Module, feats) -> tuple[Tensor, Tensor]:
        """What a decoder's queries compare with texts, where it has some.

        Args:
            detector (nn.Module): In evaluation mode, one that has 'query'
                among its :meth:`sources`.
            feats (ExtractedImages): What a reader extracted.

        Returns:
            tuple: Embeddings (N, Q, D) of any norm, and boxes (N, Q, 4),
            relative cxcywh.
        """
        raise NotImplementedError

    def set_vocabulary(self,
                       detector: nn.Module,
                       vocabulary,
                       embeddings: Tensor | None = None) -> Vocabulary:
        """Replace the classes of a trained detector.

        Args:
            detector (nn.Module): With at least one part that
                :class:`TakesVocabulary`.
            vocabulary: Anything that
                :func:`~mmdet_clim.datasets.build_vocabulary` reads.
            embeddings (Tensor, optional): Their text embeddings (C, D).

        Returns:
            Vocabulary: The vocabulary now in use.

        Raises:
            TypeError: If no part of the detector classifies by text.
            ValueError: If a name is empty, given twice or unknown to a
                precomputed text encoder, or the embeddings do not fit.
        """
        parts = list(classifying_parts(detector))
        if not parts:
            raise TypeError(
                f'vocabulary: no part of {type(detector).__name__} classifies '
                'by text; give it a zero-shot head (mmdet_clim.'
                'ZeroShotBBoxHead, mmdet_clim.ZeroShotHead, ...)')
        vocabulary = build_vocabulary(vocabulary)
        for part in parts:
            part.set_vocabulary(vocabulary, embeddings)
        return vocabulary

    def onnx_graph(self,
                   detector: nn.Module,
                   scale: tuple[int, int],
                   padding: Pad | None = None) -> nn.Module:
        """The detector as :func:`~mmdet_clim.apis.export_onnx` writes it.

        Args:
            detector (nn.Module): The detector.
            scale (tuple[int, int]): Sides in pixels that an image is resized
                into.
            padding (Pad, optional): That of the test pipeline.

        Raises:
            TypeError: If the detector can not be exported, with the reason.
        """
        raise TypeError('export: expected a two-stage detector or one with a '
                        f'dense head, got {type(detector).__name__}')


#: From the most special one; ``table`` fills it. A family of your own goes
#: before them, by ``FAMILIES.insert(0, ...)``.
FAMILIES: list[DetectorFamily] = []


def family_of(detector: nn.Module) -> DetectorFamily:
    """The family of a detector.

    Args:
        detector (nn.Module): Any detector.
    """
    return next(family for family in FAMILIES if family.fits(detector))


def classifying_parts(module: nn.Module) -> Iterator[TakesVocabulary]:
    """The outermost parts that classify: a box head, not what is in it."""
    if isinstance(module, TakesVocabulary):
        yield module
        return
    for child in module.children():
        yield from classifying_parts(child)
