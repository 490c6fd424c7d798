# Licensed under the Apache License, Version 2.0.
from typing import Sequence

from mmdet.models.detectors import GroundingDINO
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.models.families import family_of
from mmdet_clim.models.grounding_prompts import SEPARATOR
from mmdet_clim.models.modes import evaluating
from mmdet_clim.registry import MODELS

from .base import ExtractedImages
from .dense_feature_reader import DenseFeatureReader, in_pixels
from .other_maps import encoder_maps


@MODELS.register_module()
class GroundingReader(DenseFeatureReader):
    """Read and train GLIP, Grounding DINO and MM-Grounding-DINO.

    It serves two routes, which can be compared and combined:

    - ``GroundingObjective``: a mosaic becomes grounding data, on which the
      detector's own losses work;
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

    SOURCES = dict(
        query='the queries of a Grounding DINO',
        encoder='the encoder of a Grounding DINO',
        neck='feature maps')

    def __init__(self,
                 source: str | None = None,
                 prompt: str = 'object',
                 **kwargs) -> None:
        super().__init__(source=source, **kwargs)
        self.prompt = prompt

    def check(self, detector: nn.Module) -> None:
        """Raise a TypeError that says what this detector lacks."""
        if not family_of(detector).reads_texts:
            raise TypeError('GroundingReader reads an mmdet.GLIP or an '
                            'mmdet.GroundingDINO, got '
                            f'{type(detector).__name__}')
        super().check(detector)

    def prepare(self, detector: nn.Module, dim: int) -> None:
        """Make what reads the detector; see the base class."""
        self.family = family_of(detector)
        if self.source is None:
            self.source, *_ = self.family.sources(detector)
        if self.source == 'query':
            self.make_projection(detector, detector.embed_dims, dim)
        else:
            super().prepare(detector, dim)

    def queries(self, detector: GroundingDINO,
                feats: ExtractedImages) -> tuple[Tensor, Tensor]:
        """The decoder's queries (N, Q, C); see the base class."""
        texts = self._encode_prompt(detector, feats)
        # In training there would be denoising queries, which need boxes.
        with evaluating(detector):
            outputs = detector.forward_transformer(feats.levels, texts,
                                                   feats.samples())
            feats.seen['decoder'] = outputs
            _, boxes = detector.bbox_head(**outputs)
        return outputs['hidden_states'][-1], in_pixels(boxes[-1], feats)

    def _encode_prompt(self, detector: nn.Module,
                       feats: ExtractedImages) -> dict[str, Tensor]:
        """The reader's prompt as the detector takes it, for every image."""
        feats.seen['prompt'] = self.family.encode(
            detector, [self.prompt + SEPARATOR] * len(feats.inputs))
        return feats.seen['prompt']

    def _all_maps(self, detector: nn.Module,
                  feats: ExtractedImages) -> Sequence[Tensor]:
        if self.source == 'neck':
            return feats.levels
        return encoder_maps(
            detector, feats, text_dict=self._encode_prompt(detector, feats))

    def predict(self, detector: nn.Module,
                feats: ExtractedImages) -> list[InstanceData]:
        """Boxes that fit the reader's prompt, whatever else there is."""
        return self.family.predict_prompt(detector, feats, self.prompt)
