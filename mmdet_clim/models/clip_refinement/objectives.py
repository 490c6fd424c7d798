# Licensed under the Apache License, Version 2.0.
"""The losses of a training on CLIP."""
import math
from abc import ABCMeta, abstractmethod
from typing import Any, NamedTuple, Sequence

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.checks import check_finite, check_range
from mmdet_clim.datasets.source_tables import image_key
from mmdet_clim.registry import MODELS

from ..backbones import DenseImageTower, EncodedImages, ImageTower
from ..class_texts import ClassTexts
from ..losses import FederatedClassLoss
from ..losses.clim_region_loss import max_learned_temperature
from ..losses.gather import exchange_counts, gather_rows
from ..losses.metrics import recall_at_1
from ..maps import aligned_regions
from ..text_encoders import DEFAULT_TEMPLATES, Templates
from .batch_mosaic import BatchMosaic
from .patch_pooling import text_weighted


class Towers(NamedTuple):
    """The parts of CLIP that an objective works with.

    ``image`` is trained; ``original`` is the image tower as ``pretrained``
    gave it, frozen; ``text`` embeds N strings as unit vectors (N, D) and has
    the whole of CLIP's other half as ``tower``. ``temperature`` is the factor
    on the cosine of a CLIP whose text tower holds none.
    """

    image: ImageTower
    original: ImageTower
    text: nn.Module
    temperature: float | None = None


class BaseCLIPObjective(BaseModule, metaclass=ABCMeta):
    """One loss of a training on CLIP."""

    @property
    def clip_weights(self) -> dict[str, Tensor]:
        """What it has learned of CLIP's scale and bias, by their names."""
        return {}

    def prepare(self, towers: Towers) -> None:
        """Build what depends on the towers; called once, by the model."""

    @abstractmethod
    def loss(self, images: Tensor, samples: SampleList,
             towers: Towers) -> dict[str, Tensor]:
        """The loss and metrics of one batch.

        Args:
            images (Tensor): (N, 3, H, W), normalised; each fills the upper
                left corner that the ``img_shape`` of its sample tells.
            samples (list[DetDataSample]): N samples with ``captions`` (one
                list[str]) and ``image_keys``.
            towers (Towers): The towers.

        Returns:
            dict[str, Tensor]: ``loss``, and metrics without "loss" in their
            name.
        """


def original_temperature(towers: Towers) -> float:
    """The factor on the cosine that CLIP was trained with.

    Raises:
        ValueError: If neither the text tower nor the config tells it.
    """
    if towers.temperature is not None:
        return towers.temperature
    scale = dict(towers.text.tower.named_parameters()).get('logit_scale')
    if scale is None:
        raise ValueError(
            f'temperature: {type(towers.text).__name__} does not have one; '
            'expected the factor of the cosine as temperature of CLIMOnCLIP, '
            'got None')
    return scale.detach().exp().item()


def original_bias(towers: Towers) -> float | None:
    """What CLIP was trained to add to the logits; None if nothing."""
    bias = dict(towers.text.tower.named_parameters()).get('logit_bias')
    return None if bias is None else round(bias.detach().item(), ndigits=4)


def crop_images(images: Tensor, rois: Tensor, size: int) -> Tensor:
    """Cut regions out of images and squash each to a square.

    Args:
        images (Tensor): (N, 3, H, W).
        rois (Tensor): (R, 5): the image's number, absolute xyxy pixels.
        size (int): Side of the square in pixels.

    Returns:
        Tensor: (R, 3, size, size) float32.
    """
    with torch.autocast(images.device.type, enabled=False):
        return aligned_regions(images.float(), rois, size)


@MODELS.register_module()
class MosaicTextObjective(BaseCLIPObjective):
    """CLIM on CLIP: tiles of mosaics and whole images against captions.

    The images of a batch are tiled into mosaics on the device. The region
    features of the tiles and the image features of the images that stay
    whole are contrasted with one caption of each (REFERENCE.md, section 4).
    A caption also belongs to another image of the same words, on every rank.

    Without grids it is CLIP's own training on whole images.

    A tile shows an object and what is around it. With ``text_sharpness``, the
    patches that resemble its caption weigh more
    (:func:`~.patch_pooling.text_weighted`).

    Args:
        grids (Sequence[tuple[int, int]]): (rows, cols) of the mosaics of
            each batch, see :class:`BatchMosaic`.
        num_whole (int): Images that stay whole, at least.
        mosaic_size (tuple[int, int], optional): (width, height) in pixels of
            the mosaics. Defaults to that of the images.
        text_sharpness (float, optional): By how much patches that resemble
            the caption of their tile weigh more. Defaults to all alike: what
            RoIAlign reads.
        loss (dict): Config of the :class:`CLIMRegionLoss`. Without
            ``temperature``, CLIP's own, which the text tower holds, or the
            largest that is learned where its own is above it (SigLIP's are,
            for which ``kind='sigmoid'`` has no limit). Without ``bias``,
            'sigmoid' takes CLIP's own where it has one.

    Raises:
        ValueError: If a grid or ``text_sharpness`` is wrong, or a batch is
            smaller than the grids ask for.
    """

    def __init__(self,
                 grids: Sequence[tuple[int, int]] = ((2, 2), (3, 3), (4, 4)),
                 num_whole: int = 0,
                 mosaic_size: tuple[int, int] | None = None,
                 text_sharpness: float | None = None,
                 loss: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(0, without=(0, math.inf), text_sharpness=text_sharpness)
        if text_sharpness is not None and not grids:
            raise ValueError('text_sharpness has no effect without grids: '
                             f'expected None, got {text_sharpness}')
        self.mosaic = BatchMosaic(grids, num_whole, mosaic_size)
        self.text_sharpness = text_sharpness
        self._loss_cfg = loss or dict(
            type='mmdet_clim.CLIMRegionLoss',
            kind='infonce',
            learn_temperature=True,
            gather=True)

    @property
    def clip_weights(self) -> dict[str, Tensor]:
        """CLIP's scale and bias, those that the loss learns."""
        loss = self.region_loss
        learned = dict(logit_scale=loss.log_temperature, logit_bias=loss.bias)
        return {k: v for k, v in learned.items() if isinstance(v, Tensor)}

    def prepare(self, towers: Towers) -> None:
        """Build the loss, at the temperature and bias of this CLIP."""
        cfg = dict(self._loss_cfg)
        own = round(original_temperature(towers), ndigits=4)
        if cfg.get('learn_temperature'):
            own = min(own, max_learned_temperature(cfg.get('kind', 'bce')))
        cfg.setdefault('temperature', own)
        if cfg.get('kind') == 'sigmoid':
            cfg.setdefault('bias', original_bias(towers))
        self.region_loss = MODELS.build(cfg)

    def loss(self, images: Tensor, samples: SampleList,
             towers: Towers) -> dict[str, Tensor]:
        """See :class:`BaseCLIPObjective`."""
        found = [sample.captions[0] for sample in samples]
        captions = [of[int(torch.randint(len(of), ()))] for of in found]
        mosaics, rois = self.mosaic(images, [s.img_shape[:2] for s in samples])
        texts = towers.text(captions)
        regions = self._read(towers.image, mosaics, rois, images[len(rois):],
                             texts)
        keys = [s.image_keys[0] for s in samples]
        targets = self._same_text(captions, keys, images.device)
        own = torch.eye(len(captions), dtype=torch.bool, device=images.device)
        if targets.shape[1] == len(captions):
            own = targets
        loss = self.region_loss(regions, texts, targets)
        return {'loss': loss, 'recall@1': recall_at_1(regions, texts, own)}

    def _same_text(self, captions: list[str], keys: list[int],
                   device: torch.device) -> Tensor:
        """Which text belongs to which image, bool (N, texts of all ranks).

        That of the same image, and any of the same words.
        """
        # Of each image what it is and what its caption says, as 63 bits.
        mine = torch.tensor([[key, image_key(caption)]
                             for key, caption in zip(keys, captions)],
                            device=device)
        everyone = mine
        if self.region_loss.gather:
            everyone = gather_rows(mine, *exchange_counts(len(mine)))
        return (mine[:, None] == everyone[None]).any(-1)

    def _read(self, tower: DenseImageTower, mosaics: Tensor, rois: Tensor,
              whole: Tensor, texts: Tensor) -> Tensor:
        """Tiles of mosaics and whole images, (R + N, D) unit vectors.

        Where both have one size, the tower runs once.
        """
        if not len(rois):
            return tower.encode_image(whole)
        if not len(whole):
            return self._read_tiles(tower,
                                    tower.encode(mosaics)[1], rois, texts)
        if mosaics.shape[1:] == whole.shape[1:]:
            _, both = tower.encode(torch.cat([mosaics, whole]))
            tiled, alone = both.split([len(mosaics), len(whole)])
        else:
            tiled, alone = tower.encode(mosaics)[1], tower.encode(whole)[1]
        return torch.cat([
            self._read_tiles(tower, tiled, rois, texts),
            tower.image_embeddings_of(alone)
        ])

    def _read_tiles(self, tower: DenseImageTower, encoded: EncodedImages,
                    rois: Tensor, texts: Tensor) -> Tensor:
        if self.text_sharpness is None:
            return tower.region_features_of(encoded, rois)
        return text_weighted(
            tower.dense_features_of(encoded), rois, tower.stride,
            texts[:len(rois)], self.text_sharpness)


@MODELS.register_module()
class RegionLabelObjective(BaseCLIPObjective):
    r"""Proposals labelled with nouns by CLIP: RegionCLIP's way.

    The original CLIP sees the crop of a box and names it by the nearest
    noun; the region feature of the box then learns that noun, by sigmoid
    cross-entropy on :math:`\tau \cos + b` over some drawn nouns (REFERENCE.md,
    section 4: 100). It is what CLIM is compared with; CLIM itself needs no
    proposals and no names.

    Args:
        boxes (dict): Config of a :class:`BoxSource`.
        vocabulary: The nouns, anything that
            :func:`~mmdet_clim.datasets.build_vocabulary` reads.
        templates (str or Sequence[str]): See ``resolve_templates``.
        temperature (float, optional): :math:`\tau`. Defaults to the scale
            that CLIP itself has learned.
        bias (float, optional): :math:`b`, where it starts; it is learned.
            None: there is no bias.
        min_confidence (float): Boxes whose noun the original CLIP gives a
            smaller probability teach nothing.
        loss (dict, optional): Config of the :class:`FederatedClassLoss`.
            Defaults to 100 drawn nouns, the same in all processes.

    Raises:
        ValueError: If ``min_confidence`` is not a probability, ``temperature``
            not positive or ``bias`` no number, or the text tower is trained:
            the nouns are embedded once, and what names the crops is the
            original CLIP, text tower too.
    """

    def __init__(self,
                 boxes: dict,
                 vocabulary: Any,
                 templates: Templates = DEFAULT_TEMPLATES,
                 temperature: float | None = None,
                 bias: float | None = None,
                 min_confidence: float = 0.0,
                 loss: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(0, 1, without=(1, ), min_confidence=min_confidence)
        check_range(0, without=(0, math.inf), temperature=temperature)
        check_finite(bias=bias)
        self.boxes = MODELS.build(boxes)
        self.temperature = temperature
        self.logit_bias = None if bias is None else torch.nn.Parameter(
            torch.tensor(float(bias)))
        self.min_confidence = min_confidence
        self.class_loss = MODELS.build(loss) if loss else \
            FederatedClassLoss(100, gather=True)
        self.classes = ClassTexts(vocabulary, templates)
        self.class_loss.set_classes(self.classes)

    def prepare(self, towers: Towers) -> None:
        """Embed the nouns; take CLIP's own scale where none is given."""
        if any(p.requires_grad for p in towers.text.parameters()):
            raise ValueError(
                'text_encoder: RegionLabelObjective expects a frozen one, as '
                'OpenCLIPTextEncoder is, got a trained '
                f'{type(towers.text).__name__}')
        self.classes(towers.text)
        if self.temperature is None:
            self.temperature = original_temperature(towers)

    @property
    def nouns(self) -> Tensor:
        """Unit vectors (C, D) of the nouns."""
        return self.classes.embeddings

    def loss(self, images: Tensor, samples: SampleList,
             towers: Towers) -> dict[str, Tensor]:
        """See :class:`BaseCLIPObjective`."""
        rois = bbox2roi([self.boxes(s).to(images.device) for s in samples])
        labels, confidence = self._name(images, rois, towers)
        sure = confidence >= self.min_confidence
        # As background it would be a negative of every noun, with weight 0.
        labels = torch.where(sure, labels, len(self.nouns))
        regions = towers.image.region_features(images, rois)
        # Of all ranks on average, as DDP averages their gradients.
        num_sure = reduce_mean(sure.float().sum()).item()
        with torch.autocast(images.device.type, enabled=False):
            logits = self.temperature * regions.float() @ self.nouns.t()
            if self.logit_bias is not None:
                logits = logits + self.logit_bias
        sure = sure.float()
        loss = self.class_loss(logits, labels, sure, max(num_sure, 1.0))
        return {'loss': loss, 'sure': sure.mean() * 100}

    @torch.no_grad()
    def _name(self, images: Tensor, rois: Tensor, towers: Towers):
        """Nearest noun and its probability, by the original CLIP."""
        crops = crop_images(images, rois, towers.original.native_size)
        seen = towers.original.encode_image(crops)
        with torch.autocast(images.device.type, enabled=False):
            cosines = seen.float() @ self.nouns.t()
        chances = (original_temperature(towers) * cosines).softmax(1)
        confidence, labels = chances.max(1)
        return labels, confidence


@MODELS.register_module()
class SelfDistillationObjective(BaseCLIPObjective):
    r"""Region features that equal what CLIP sees in the region's crop.

    The idea of CLIPSelf (arXiv 2310.01403): with :math:`r_k` the region
    feature of box :math:`k` and :math:`o_k` the image embedding of its crop
    by the original CLIP, both of norm one,

    .. math:: L = \frac{1}{K} \sum_k (1 - r_k \cdot o_k)

    It needs no text. :math:`K` is the number of boxes per process, on average
    over the processes, as DDP averages the gradients.

    Args:
        boxes (dict, optional): Config of a :class:`BoxSource`. Defaults to
            :class:`GridBoxes`.
        crop_size (int, optional): Side in pixels of the squares that crops
            are squashed to. Defaults to what CLIP was trained on.
        loss_weight (float): Factor on the loss.
    """

    def __init__(self,
                 boxes: dict | None = None,
                 crop_size: int | None = None,
                 loss_weight: float = 1.0,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.boxes = MODELS.build(boxes or dict(type='mmdet_clim.GridBoxes'))
        self.crop_size = crop_size
        self.loss_weight = loss_weight

    def loss(self, images: Tensor, samples: SampleList,
             towers: Towers) -> dict[str, Tensor]:
        """See :class:`BaseCLIPObjective`."""
        rois = bbox2roi([self.boxes(s).to(images.device) for s in samples])
        with torch.no_grad():
            crops = crop_images(images, rois, self.crop_size
                                or towers.original.native_size)
            wanted = towers.original.encode_image(crops)
        regions = towers.image.region_features(images, rois)
        cosines = (regions * wanted).sum(1)
        count = reduce_mean(cosines.new_tensor(float(len(cosines))))
        return {'loss': self.loss_weight * (1 - cosines).sum() / count}
