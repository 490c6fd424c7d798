# Licensed under the Apache License, Version 2.0.
from functools import partial
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from mmdet.models.detectors import GLIP, GroundingDINO
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from .base import ReadingStage
from .dense_feature_reader import (
    DenseFeatureReader,
    ExtractedImages,
    encoder_maps,
    evaluating,
)
from .grounding_prompts import SEPARATOR, GroundingPrompt, pack_phrases
from .grounding_text_loss import text_loss

GroundingDetector = Union[GLIP, GroundingDINO]


@MODELS.register_module()
class GroundingReader(DenseFeatureReader):
    """Read and train GLIP, Grounding DINO and MM-Grounding-DINO.

    It serves two routes, which can be compared and combined:

    - ``GroundingObjective``: a mosaic becomes grounding data, on which the
      detector's own losses work (:meth:`grounding_losses`);
    - the region objectives: a contrastive loss between embeddings of regions
      and of texts. Where an embedding comes from is ``source``:

      - ``'query'``: the decoder's query whose box fits the region best;
      - ``'encoder'``: the mean of the encoder's map over the region;
      - ``'neck'``: the mean of the neck's map, all that GLIP has,

      each with a linear projection of the reader's own.

    These detectors look at an image for the sake of a text. What the regions
    are read with is ``prompt``, the same for every image: a region's own
    text in it would give the answer away.

    Args:
        source (str, optional): One of these; ``'encoder'`` by default, with
            GLIP ``'neck'``.
        prompt (str): What regions and proposals are looked for with.
        **kwargs: Of :class:`DenseFeatureReader`.
    """

    SOURCES = ('query', 'encoder', 'neck')

    def __init__(self,
                 source: Optional[str] = None,
                 prompt: str = 'object',
                 **kwargs) -> None:
        super().__init__(source=source, **kwargs)
        self.prompt = prompt

    def check(self, detector: nn.Module) -> None:
        """Raise a TypeError that says what this detector lacks."""
        if not isinstance(detector, (GLIP, GroundingDINO)):
            raise TypeError('GroundingReader reads an mmdet.GLIP or an '
                            f'mmdet.GroundingDINO, got '
                            f'{type(detector).__name__}')
        if isinstance(detector, GLIP) and self.source not in (None, 'neck'):
            raise TypeError(f'GroundingReader(source={self.source!r}) reads '
                            "an mmdet.GroundingDINO; of a GLIP, 'neck'")

    def prepare(self, detector: GroundingDetector, dim: int) -> None:
        """Make what reads the detector; see the base class."""
        self.has_queries = isinstance(detector, GroundingDINO)
        if self.source is None:
            self.source = 'encoder' if self.has_queries else 'neck'
        if self.source == 'query':
            self.make_projection(detector, detector.embed_dims, dim)
        else:
            super().prepare(detector, dim)

    def read(self, detector: GroundingDetector, feats: ExtractedImages,
             rois: Tensor) -> Tensor:
        """RoIs (R, 5) to embeddings (R, D); see the base class."""
        if self.source != 'query':
            return super().read(detector, feats, rois)
        return self.embed_queries(*self.queries(detector, feats), rois)

    def stages(self, detector: GroundingDetector, feats: ExtractedImages,
               proposals: List[InstanceData],
               data_samples: list) -> Iterator[ReadingStage]:
        """One stage, with the padding of the images known."""
        if self.source != 'query':
            yield from super().stages(detector, feats, proposals, data_samples)
            return
        queries = self.queries(detector, feats, data_samples)
        yield ReadingStage(0, 1, 1.0, proposals,
                           partial(self.embed_queries, *queries))

    def queries(
            self,
            detector: GroundingDINO,
            feats: ExtractedImages,
            data_samples: Optional[SampleList] = None
    ) -> Tuple[Tensor, Tensor]:
        """The decoder's queries (N, Q, C) and their boxes (N, Q, 4), xyxy."""
        samples = self._plain_samples(feats, data_samples)
        texts = encode_prompts(detector, [self._prompt] * len(samples))
        # In training there would be denoising queries, which need boxes.
        with evaluating(detector):
            outputs = detector.forward_transformer(feats.levels, texts,
                                                   samples)
            _, boxes = detector.bbox_head(**outputs)
        # With mixed precision, the areas of large boxes would be infinite.
        boxes = boxes[-1].float()
        # Boxes are relative to each image without its padding.
        sizes = boxes.new_tensor(
            [sample.img_shape[::-1] for sample in samples]).repeat(1, 2)
        boxes = bbox_cxcywh_to_xyxy(boxes) * sizes[:, None]
        return outputs['hidden_states'][-1], boxes.detach()

    def embed_queries(self, queries: Tensor, boxes: Tensor,
                      rois: Tensor) -> Tensor:
        """Per region, the query whose box overlaps it most.

        Args:
            queries (Tensor): Shape (N, Q, C).
            boxes (Tensor): Shape (N, Q, 4), absolute xyxy pixels.
            rois (Tensor): Shape (R, 5): image index, then absolute xyxy.

        Returns:
            Tensor: Shape (R, D).
        """
        image = rois[:, 0].long()
        overlaps = bbox_overlaps(rois[:, None, 1:], boxes[image])[:, 0]
        best = overlaps.argmax(1)
        return self.projection(queries[image, best].float())

    @property
    def _prompt(self) -> str:
        return self.prompt + SEPARATOR

    def _plain_samples(self, feats: ExtractedImages,
                       data_samples: Optional[SampleList]) -> SampleList:
        size = tuple(feats.inputs.shape[-2:])
        if data_samples is None:
            metas = [dict(img_shape=size)] * len(feats.inputs)
        else:
            metas = [sample.metainfo for sample in data_samples]
        return [
            DetDataSample(metainfo=dict(meta, batch_input_shape=size))
            for meta in metas
        ]

    def _all_maps(
            self,
            detector: GroundingDetector,
            feats: ExtractedImages,
            data_samples: Optional[SampleList] = None) -> Sequence[Tensor]:
        if self.source == 'neck':
            return feats.levels
        samples = self._plain_samples(feats, data_samples)
        texts = encode_prompts(detector, [self._prompt] * len(samples))
        return encoder_maps(detector, feats, samples, text_dict=texts)

    def predict(self, detector: GroundingDetector, feats: ExtractedImages,
                samples: SampleList) -> List[InstanceData]:
        """Boxes that fit the reader's prompt, whatever else there is."""
        found = []
        # One by one, as a detector with chunked_size in its test_cfg asks.
        for image, sample in zip(feats.inputs, samples):
            sample.set_metainfo(
                dict(
                    text=(self.prompt, ),
                    custom_entities=True,
                    batch_input_shape=tuple(image.shape[-2:])))
            predicted, = detector.predict(image[None], [sample], rescale=False)
            found.append(predicted.pred_instances)
        return found

    def prompts(self, detector: GroundingDetector,
                phrases: Sequence[str]) -> List[GroundingPrompt]:
        """Phrases to prompts that the detector's language model takes whole.

        Args:
            detector (GLIP or GroundingDINO): With a ``language_model``.
            phrases (Sequence[str]): Captions or class names, clean.
        """
        model = detector.language_model
        limit = model.max_tokens
        if isinstance(detector, GroundingDINO):
            limit = min(limit, detector.bbox_head.max_text_len)
        prompts = pack_phrases(
            phrases, lambda text: len(model.tokenizer.tokenize(text)), limit)
        if isinstance(detector, GLIP):
            # It was trained without the last mark.
            for prompt in prompts:
                prompt.text = prompt.text.removesuffix(SEPARATOR)
        return prompts

    def grounding_losses(self,
                         detector: GroundingDetector,
                         levels: Sequence[Tensor],
                         samples: SampleList,
                         match: str = 'box') -> Dict[str, Tensor]:
        """The detector's own losses on grounding data.

        Args:
            detector (GLIP or GroundingDINO): The detector.
            levels (Sequence[Tensor]): The neck's maps (N, C, H, W).
            samples (list[DetDataSample]): N samples with ``text``, with
                ``tokens_positive``: per box a list of ``[begin, end]``
                characters, and ``gt_instances``: ``bboxes`` (n, 4), absolute
                xyxy, and ``labels`` (n,), which number the boxes.
            match (str): ``'box'``: a box is an object's. ``'text'``, with a
                Grounding DINO: it tells where to look for its phrase, and
                there is :func:`~.grounding_text_loss.text_loss` alone.

        Returns:
            dict: As the detector's head names them.

        Raises:
            ValueError: If there are more boxes than the denoising queries of
                Grounding DINO tell apart.
        """
        texts = encode_prompts(detector, [sample.text for sample in samples])
        for index, sample in enumerate(samples):
            boxes = sample.gt_instances
            if isinstance(detector, GroundingDINO) and \
                    len(boxes) > detector.bbox_head.num_classes:
                raise ValueError(
                    f'bbox_head.num_classes: expected at least {len(boxes)}, '
                    'one per region of a mosaic, got '
                    f'{detector.bbox_head.num_classes}')
            tokens = detector.language_model.tokenizer([sample.text],
                                                       return_tensors='pt')
            _, positive = detector.get_positive_map(tokens,
                                                    sample.tokens_positive)
            boxes.positive_maps = positive.bool().float().to(boxes.bboxes)
            if isinstance(detector, GroundingDINO):
                boxes.text_token_mask = texts['text_token_mask'][index].expand(
                    len(boxes), -1)
        if isinstance(detector, GLIP):
            return detector.bbox_head.loss(levels, texts, samples)
        outputs = detector.forward_transformer(levels, texts, samples)
        if match == 'text':
            return dict(
                loss_cls=text_loss(detector.bbox_head, samples, **outputs))
        return detector.bbox_head.loss(**outputs, batch_data_samples=samples)


def encode_prompts(detector: GroundingDetector,
                   prompts: Sequence[str]) -> Dict[str, Tensor]:
    """Prompts to what the detector's layers take of them.

    Args:
        detector (GLIP or GroundingDINO): With a ``language_model``.
        prompts (Sequence[str]): N texts.
    """
    texts = detector.language_model(list(prompts))
    if isinstance(detector, GroundingDINO):
        texts['embedded'] = detector.text_feat_map(texts['embedded'])
    return texts


def grounding_samples(prompts: Sequence[GroundingPrompt], boxes: Tensor,
                      positives: Tensor, metainfo: dict) -> SampleList:
    """One image as grounding data: a sample for each of its prompts.

    A box stands in every prompt that holds one of its phrases or a part of
    it; a prompt without a box gives no sample.

    Args:
        prompts (Sequence[GroundingPrompt]): Of the image's phrases.
        boxes (Tensor): Shape (n, 4), absolute xyxy pixels.
        positives (Tensor): bool (n, P): which box shows which phrase.
        metainfo (dict): Of the image.
    """
    samples = []
    for prompt in prompts:
        spans = [[
            span for index in row.nonzero().flatten().tolist()
            for span in prompt.spans.get(index, [])
        ] for row in positives.cpu()]
        rows = [row for row, of_row in enumerate(spans) if of_row]
        if not rows:
            continue
        sample = DetDataSample(
            metainfo=dict(
                metainfo,
                text=prompt.text,
                tokens_positive=[spans[row] for row in rows]))
        sample.gt_instances = InstanceData(
            bboxes=boxes[rows],
            labels=torch.arange(len(rows), device=boxes.device))
        samples.append(sample)
    return samples
