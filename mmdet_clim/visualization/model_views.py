# Licensed under the Apache License, Version 2.0.
"""Detectors and CLIPs as pictures look at them: texts, regions, features."""
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_clim.models.clip_refinement import CLIMOnCLIP
from mmdet_clim.models.detectors import CLIMDetector
from mmdet_clim.models.region_readers import (
    BaseRegionReader,
    build_region_reader,
)
from mmdet_clim.models.roi_heads import ZeroShotClassifier
from mmdet_clim.models.text_encoders import (
    BaseTextEncoder,
    build_text_encoder,
    encode_classes,
)

from .response_maps import detector_responses, tower_responses


class SeenImage(NamedTuple):
    """An image as a model took it in, once for all that is asked of it.

    Args:
        size (tuple[int, int]): Height and width of the model's input.
        feats: What the model made of it.
    """

    size: tuple[int, int]
    feats: Any


class ModelView(metaclass=ABCMeta):
    """What pictures ask a model, whatever its kind.

    Args:
        text_encoder (BaseTextEncoder): Of the model's embeddings.
        preprocessor (nn.Module): What makes the model's input of an image.
    """

    def __init__(self, text_encoder: BaseTextEncoder,
                 preprocessor: nn.Module) -> None:
        self.text_encoder = text_encoder
        self.preprocessor = preprocessor

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts as they are to unit vectors (T, D)."""
        return encode_classes(self.text_encoder, texts,
                              ('{}', )).to(self.preprocessor.device)

    def look(self, image: Tensor) -> SeenImage:
        """Have the model take in an image.

        Args:
            image (Tensor): Shape (3, h, w), uint8, BGR. The model's input may
                be larger: it is padded on the right and at the bottom.
        """
        sample = DetDataSample(metainfo=dict(img_shape=image.shape[1:]))
        pixels = self.preprocessor(
            dict(inputs=[image], data_samples=[sample]))['inputs']
        return SeenImage(tuple(pixels.shape[2:]), self.extract(pixels))

    @abstractmethod
    def extract(self, pixels: Tensor) -> Any:
        """What the model makes of its input (1, 3, H, W)."""

    @abstractmethod
    def responses(self, seen: SeenImage, texts: Tensor) -> Tensor:
        """Where the model answers to texts.

        Args:
            seen (SeenImage): What :meth:`look` gave, H x W pixels large.
            texts (Tensor): Unit vectors (T, D).

        Returns:
            Tensor: Cosines, (T, H, W).
        """

    @abstractmethod
    def dense_features(self, seen: SeenImage) -> Tensor:
        """Features (D, h, w) of what :meth:`look` gave."""

    @abstractmethod
    def propose(self, seen: SeenImage, shape: Sequence[int]) -> Tensor:
        """Likely objects, best first.

        Args:
            seen (SeenImage): What :meth:`look` gave.
            shape (tuple[int, int]): Height and width without the padding.

        Returns:
            Tensor: Shape (n, 4), xyxy pixels of the input.

        Raises:
            TypeError: If the model proposes no boxes.
        """

    @abstractmethod
    def read(self, seen: SeenImage, boxes: Tensor) -> Tensor:
        """Boxes (R, 4), xyxy pixels of the input, to embeddings (R, D)."""


class DetectorView(ModelView):
    """A detector, by its region reader.

    Args:
        detector (nn.Module): In evaluation mode.
        text_encoder (BaseTextEncoder): Of its embeddings.
        reader (BaseRegionReader): That reads it.
    """

    def __init__(self, detector: nn.Module, text_encoder: BaseTextEncoder,
                 reader: BaseRegionReader) -> None:
        super().__init__(text_encoder, detector.data_preprocessor)
        self.detector = detector
        self.reader = reader

    def extract(self, pixels: Tensor) -> Any:
        """The feature maps that the reader reads."""
        return self.reader.extract_feat(self.detector, pixels)

    def responses(self, seen: SeenImage, texts: Tensor) -> Tensor:
        """Cosines of texts and of windows, as the reader reads these."""
        return detector_responses(self.detector, self.reader, seen.feats,
                                  seen.size, texts)

    def dense_features(self, seen: SeenImage) -> Tensor:
        """The first of the detector's feature maps."""
        return seen.feats.levels[0][0]

    def propose(self, seen: SeenImage, shape: Sequence[int]) -> Tensor:
        """What the reader proposes of this image."""
        meta = dict(
            img_shape=tuple(shape),
            ori_shape=tuple(shape),
            batch_input_shape=seen.size,
            scale_factor=(1.0, 1.0))
        found, = self.reader.propose(self.detector,
                                     replace(seen.feats, metas=[meta]))
        return found.bboxes

    def read(self, seen: SeenImage, boxes: Tensor) -> Tensor:
        """Region embeddings, as the classifier compares them with texts."""
        stage = self.reader.stages(self.detector, seen.feats)[-1]
        return stage.read_as_text(_rois(boxes)).float()


class TowerView(ModelView):
    """The image tower of a CLIP that ``CLIMOnCLIP`` refines.

    Args:
        model (CLIMOnCLIP): In evaluation mode.
    """

    def __init__(self, model: CLIMOnCLIP) -> None:
        super().__init__(model.text_encoder, model.data_preprocessor)
        self.tower = model.image_tower

    def extract(self, pixels: Tensor) -> Any:
        """What the tower encodes."""
        return self.tower.encode(pixels)[1]

    def responses(self, seen: SeenImage, texts: Tensor) -> Tensor:
        """Cosines of texts and of CLIP's dense features."""
        return tower_responses(self.dense_features(seen), seen.size, texts)

    def dense_features(self, seen: SeenImage) -> Tensor:
        """CLIP's embeddings of all positions."""
        return self.tower.dense_features_of(seen.feats)[0]

    def propose(self, seen: SeenImage, shape: Sequence[int]) -> Tensor:
        """Raise a TypeError: the boxes have to be given."""
        raise TypeError('boxes: expected some, as a CLIP proposes none')

    def read(self, seen: SeenImage, boxes: Tensor) -> Tensor:
        """CLIP's embeddings of the boxes."""
        return self.tower.region_features_of(seen.feats, _rois(boxes))


def view_model(model: nn.Module, name: str | None = None) -> ModelView:
    """How pictures look at a model.

    Args:
        model (nn.Module): A detector, wrapped or not, or a ``CLIMOnCLIP``, in
            evaluation mode.
        name (str, optional): What an error calls it. Defaults to its type.

    Raises:
        TypeError: If the model does not classify by text, no region reader
            fits it, or it is not wrapped and only one with a projection does.
    """
    if isinstance(model, CLIMOnCLIP):
        return TowerView(model)
    if isinstance(model, CLIMDetector):
        return DetectorView(model.detector, model.text_encoder,
                            model.region_reader)
    classifiers = [
        m for m in model.modules() if isinstance(m, ZeroShotClassifier)
    ]
    if not classifiers:
        raise TypeError(f'{name or "model"}: {type(model).__name__} does not '
                        'classify by text')
    encoder = build_text_encoder(classifiers[0].text_encoder_cfg)
    return DetectorView(model, encoder, own_reader(model, encoder.dim))


def own_reader(detector: nn.Module, dim: int) -> BaseRegionReader:
    """What reads the regions of a detector that has no wrapper.

    Args:
        detector (nn.Module): That classifies by text.
        dim (int): Width of the text embeddings.

    Raises:
        TypeError: If no region reader fits it, or only one with a projection,
            which CLIM would train and which here is as it was drawn.
    """
    reader = build_region_reader(None, detector, dim)
    if list(reader.parameters()):
        raise TypeError(
            f'{type(reader).__name__} reads {type(detector).__name__} through '
            'a projection that is not a part of the detector')
    return reader


def _rois(boxes: Tensor) -> Tensor:
    """Boxes (R, 4) of one image as RoIs (R, 5)."""
    return torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
