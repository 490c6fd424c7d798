# Licensed under the Apache License, Version 2.0.
"""Grounding DINO as one graph, from pixels to boxes of a fixed prompt."""

import torch
from mmcv.transforms import Pad
from mmdet.models.detectors import GroundingDINO
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from .onnx_image import OnnxImage


class OnnxGroundingDetector(nn.Module):
    """A Grounding DINO for its present classes, which are part of the graph.

    What the language model makes of their names is a constant, and the maps
    of an image have one size: the test pipeline pads to it.

    Args:
        detector (GroundingDINO): Or MM-Grounding-DINO, with the class names
            in ``dataset_meta``.
        scale (tuple[int, int]): Longest and shortest side in pixels that an
            image is resized into.
        padding (Pad, optional): That of the test pipeline.

    Raises:
        TypeError: If there is no class, there are too many for one prompt, or
            images are not padded to one size.
    """

    #: The classes are no input.
    classifiers = ()

    def __init__(self,
                 detector: GroundingDINO,
                 scale: tuple[int, int],
                 padding: Pad | None = None) -> None:
        super().__init__()
        self.detector = detector.eval()
        self.canvas = _canvas(detector, scale, padding)
        self.prepare = OnnxImage(detector.data_preprocessor, scale, padding)
        self.class_names: list[str] = list(
            getattr(detector, 'dataset_meta', {}).get('classes', ()))
        if not self.class_names:
            raise TypeError(
                'export: the classes are part of the graph of '
                f'{type(detector).__name__}, expected a vocabulary')
        positive, prompt = _prompt(detector, self.class_names)
        with torch.no_grad():
            texts = detector.language_model([prompt])
            texts['embedded'] = detector.text_feat_map(texts['embedded'])
        self.text_keys = list(texts)
        for key, value in texts.items():
            self.register_buffer(f'text_{key}', value)
        # The score of a class is the mean over its tokens.
        share = torch.zeros(detector.bbox_head.max_text_len,
                            len(self.class_names))
        for label, tokens in positive.items():
            share[tokens, label - 1] = 1 / len(tokens)
        self.register_buffer('share', share)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            image (Tensor): uint8, shape (H, W, 3), BGR.

        Returns:
            tuple[Tensor, Tensor, Tensor]: ``boxes`` (n, 4), absolute xyxy
            pixels of the image; ``scores`` (n,), best first; ``labels`` (n,).
        """
        inputs, size, factors = self.prepare(image)
        # From here on, the exporter may take sizes for constants.
        inputs = inputs.reshape(1, inputs.shape[1], *self.canvas)
        sample = DetDataSample(
            metainfo=dict(
                batch_input_shape=self.canvas, img_shape=self.canvas))
        texts = {key: self.get_buffer(f'text_{key}') for key in self.text_keys}
        outputs = self.detector.forward_transformer(
            self.detector.extract_feat(inputs), texts, [sample])
        head = self.detector.bbox_head
        logits, boxes = (layers[-1, 0] for layers in head(**outputs))
        scores = (logits.sigmoid() @ self.share).flatten()
        most = min(
            head.test_cfg.get('max_per_img', len(logits)), scores.shape[0])
        scores, order = scores.topk(most)
        classes = len(self.class_names)
        boxes = bbox_cxcywh_to_xyxy(boxes[torch.div(
            order, classes, rounding_mode='floor')])
        limit = size.flip(0).repeat(2)
        boxes = torch.minimum((boxes * limit).clamp(min=0), limit)
        return boxes / factors, scores, order % classes


def _canvas(detector: GroundingDINO, scale: tuple[int, int],
            padding: Pad | None) -> tuple[int, int]:
    """Height and width of every input of the network."""
    side, step = max(scale), detector.data_preprocessor.pad_size_divisor
    size = padding.size if padding is not None else None
    if size is None or min(size) < side or any(s % step for s in size):
        least = -(-side // step) * step
        raise TypeError(
            f'export: {type(detector).__name__} has a graph for images of one '
            'size: expected a Pad with size=, at least '
            f'({least}, {least}), in the test pipeline after the Resize, got '
            f'{padding}')
    return size[1], size[0]


def _prompt(detector: GroundingDINO, names: list[str]) -> tuple[dict, str]:
    """The tokens of each class by its number from 1, and their text."""
    positive, prompt, *_ = detector.get_tokens_positive_and_prompts(
        tuple(names), True, None, None)
    if isinstance(prompt, str):
        return positive, prompt
    # By test_cfg.chunked_size.
    if len(prompt) > 1:
        raise TypeError(f'export: expected classes of one prompt, got '
                        f'{len(names)}, which are read in {len(prompt)}')
    return positive[0], prompt[0]
