# Licensed under the Apache License, Version 2.0.
import copy
from typing import Any, Mapping, Sequence, cast

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.checks import check_choice, check_loss_names
from mmdet_clim.registry import MODELS

from ..class_texts import ClassTexts
from ..connected_zero import connected_zero
from ..modes import batch_norms
from ..text_encoders import DEFAULT_TEMPLATES, Templates
from .objectives import Towers
from .towers import (
    ALL,
    CENTRE,
    CROP_ENLARGE,
    REGION_WAYS,
    crop_embeddings,
    enlarged,
    mask_embeddings,
    unlock_blocks,
)

#: The branch of samples that are whole images with captions.
CAPTIONS_BRANCH = 'captions'
IMAGE_PREFIX = 'image_tower.visual.'
TEXT_PREFIX = 'text_encoder.tower.'


@MODELS.register_module()
class CLIMOnCLIP(BaseModel):
    """Refine the image tower of a CLIP on image-text pairs alone.

    A training batch holds captioned images of one size, as
    ``PackRegionTextInputs`` packs them. Each objective gives one loss:
    ``MosaicTextObjective`` (CLIM), ``RegionLabelObjective`` (RegionCLIP's
    way), ``SelfDistillationObjective`` (CLIPSelf's). The losses are named
    ``{objective}.loss``.

    Testing, a sample with ground-truth regions gets ``pred_regions``: its
    cosines (R, C) to the classes by each of ``region_ways``, for
    ``RegionClassificationMetric``; one of the branch ``captions`` gets
    ``pred_pair`` for ``ImageTextRetrievalMetric``.

    A checkpoint of open_clip loads as it is, so that ``tools/test.py CONFIG
    OPEN_CLIP_FILE`` measures it; :meth:`open_clip_state_dict` is the way
    back. It must be of the same text tower, where that is frozen.

    The original, which objectives ask and trained weights are averaged with,
    is the CLIP that ``image_tower.pretrained`` names, whatever is loaded
    later: a training may go on from a checkpoint of an earlier refinement
    of this CLIP, and not from that of another one.

    Args:
        image_tower (dict): Config of the ``DenseImageTower``; or of a
            ``BackboneTower``, which needs no CLIP.
        text_encoder (dict): Config of the ``OpenCLIPTextEncoder``, frozen,
            or beside a ``BackboneTower`` of any text encoder; or of the
            ``OpenCLIPTextTower``, which is trained too.
        objectives (dict): Name to config of an objective.
        unlocked_blocks (int | str): How many of the last blocks of the image
            tower are trained, all else of it being frozen; 'all': every
            weight of the tower.
        image_size (tuple[int, int]): (width, height) in pixels that training
            images are padded to.
        vocabulary (optional): The classes of regions at test time, anything
            that ``build_vocabulary`` reads.
        templates (str or Sequence[str]): See ``resolve_templates``.
        region_ways (Sequence[str]): How regions are read at test time:
            'roi', 'centre' (of the box, which its object fills more than its
            rim), 'mask' (where masks are annotated), 'crop'.
        temperature (float, optional): The factor on the cosine of the
            original, where the text encoder holds none. Defaults to CLIP's
            own.
        num_things (int, optional): Only boxes of the first so many classes
            are enlarged. Defaults to all.
        data_preprocessor (dict, optional): Config of the preprocessor.
            Defaults to CLIP's own mean and deviation.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self,
                 image_tower: dict,
                 text_encoder: dict,
                 objectives: Mapping[str, dict],
                 unlocked_blocks: int | str,
                 image_size: tuple[int, int],
                 vocabulary: Any = None,
                 templates: Templates = DEFAULT_TEMPLATES,
                 region_ways: Sequence[str] = ('roi', 'mask', 'crop'),
                 temperature: float | None = None,
                 num_things: int | None = None,
                 data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        _check_names(objectives, region_ways)
        tower = MODELS.build(image_tower)
        super().__init__(
            data_preprocessor or _preprocessor(tower, image_size), init_cfg)
        self.image_tower = tower
        self.text_encoder = MODELS.build(text_encoder)
        unlock_blocks(tower.visual, unlocked_blocks)
        self.unlocked_blocks = unlocked_blocks
        self.temperature = temperature
        self._original = (_frozen_copy(tower), )
        built = {name: MODELS.build(cfg) for name, cfg in objectives.items()}
        self.objectives = nn.ModuleDict(built)
        for objective in self.objectives.values():
            objective.prepare(self.towers)
        self.classes = None if vocabulary is None else ClassTexts(
            vocabulary, templates)
        self.region_ways = tuple(region_ways)
        self.num_things = num_things
        self.register_load_state_dict_pre_hook(_accept_open_clip)
        # A weight that differs although it is frozen, if another CLIP loads.
        self._of_another_clip: str | None = None
        self.register_load_state_dict_pre_hook(_note_another_clip)
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        print_log(
            f'CLIMOnCLIP trains {trained / 1e6:.2f} million weights '
            f'(unlocked_blocks={unlocked_blocks!r})', 'current')

    @property
    def towers(self) -> Towers:
        """The towers, as the objectives take them."""
        return Towers(self.image_tower, self._original[0], self.text_encoder,
                      self.temperature)

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        # In a tuple it is in no checkpoint, optimiser or DDP bucket.
        self._original[0]._apply(fn)
        return self

    def train(self, mode: bool = True) -> 'CLIMOnCLIP':
        """Set the mode; batch norms of a refined tower keep their numbers."""
        super().train(mode)
        if self.classes is not None:
            # The text tower may be trained.
            self.classes.has_embeddings = False
        if mode and self.unlocked_blocks != ALL:
            for norm in batch_norms(self.image_tower):
                norm.eval()
        return self

    def forward(self,
                inputs: Tensor,
                data_samples: SampleList | None = None,
                mode: str = 'tensor'):
        """Losses, predictions, or the dense features of the images."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self.image_tower.dense_features(inputs)

    def loss(self, inputs: Tensor,
             data_samples: SampleList) -> dict[str, Tensor]:
        """Losses and metrics of all objectives.

        Args:
            inputs (Tensor): (N, 3, H, W), padded to ``image_size``.
            data_samples (list[DetDataSample]): N samples.

        Returns:
            dict: ``{objective}.{value}``.

        Raises:
            ValueError: If weights of another CLIP than the original were
                loaded.
        """
        if self._of_another_clip is not None:
            raise ValueError(
                'load_from: expected a checkpoint of the CLIP that '
                'image_tower.pretrained names, since trained weights are '
                'averaged with that one; in this checkpoint, the frozen '
                f'{self._of_another_clip!r} differs. Set pretrained of '
                'image_tower and text_encoder to the CLIP that is to be '
                'refined')
        losses = {}
        for name, objective in self.objectives.items():
            values = objective.loss(inputs, data_samples, self.towers)
            for key, value in values.items():
                losses[f'{name}.{key}'] = value
        # Under DDP every rank must reach every weight that learns, and some
        # are read by no objective, such as the pool of an unlocked tower.
        losses[f'{name}.loss'] = losses[f'{name}.loss'] + connected_zero(
            [self])
        return losses

    def predict(self, inputs: Tensor, data_samples: SampleList) -> SampleList:
        """Cosines of regions to the classes; embeddings of pairs.

        Args:
            inputs (Tensor): (N, 3, H, W).
            data_samples (list[DetDataSample]): N samples.

        Returns:
            list[DetDataSample]: The same, with ``pred_regions`` or
            ``pred_pair``.
        """
        for image, sample in zip(inputs, data_samples):
            height, width = sample.img_shape[:2]
            # Without what it was padded with to stand in a batch.
            image = image[None, :, :height, :width]
            if sample.get('branch') == CAPTIONS_BRANCH:
                captions = [c for tile in sample.captions for c in tile]
                sample.pred_pair = InstanceData(
                    image=self.image_tower.encode_image(image),
                    texts=self.text_encoder(captions)[None])
            else:
                sample.pred_regions = self._classify(image,
                                                     sample.gt_instances)
        return data_samples

    def _classify(self, image: Tensor, regions: InstanceData) -> InstanceData:
        """Cosines (R, C) to the classes, by each way."""
        # Before anything is read.
        self.class_embeddings()
        classes = cast(ClassTexts, self.classes)
        boxes = regions.bboxes.to(image)
        found = {}
        if len(boxes) == 0:
            return InstanceData()
        _, encoded = self.image_tower.encode(image)
        if 'roi' in self.region_ways:
            found['roi'] = self.image_tower.region_features_of(
                encoded, bbox2roi([boxes]))
        if 'centre' in self.region_ways:
            centres = enlarged(boxes, boxes.new_full((len(boxes), ), CENTRE),
                               image.shape[-2:])
            found['centre'] = self.image_tower.region_features_of(
                encoded, bbox2roi([centres]))
        if 'mask' in self.region_ways and 'masks' in regions:
            masks = regions.masks.to_tensor(torch.float32, image.device)
            found['mask'] = mask_embeddings(self.image_tower, encoded, masks)
        if 'crop' in self.region_ways:
            factors = boxes.new_full((len(boxes), ), CROP_ENLARGE)
            if self.num_things is not None:
                factors[regions.labels >= self.num_things] = 1
            found['crop'] = crop_embeddings(self.image_tower, image, boxes,
                                            factors)
        return InstanceData(**{
            way: classes.cosines(value)
            for way, value in found.items()
        })

    def class_embeddings(self) -> Tensor:
        """Unit vectors (C, D) of the classes at test time.

        Raises:
            ValueError: If the model has no vocabulary.
        """
        if self.classes is None:
            raise ValueError('vocabulary: CLIMOnCLIP needs the classes of '
                             'the regions that it is to classify, got None')
        return self.classes(self.text_encoder)

    def open_clip_state_dict(self, alpha: float = 1.0) -> dict[str, Tensor]:
        """All weights of the CLIP by open_clip's names, on the CPU.

        Args:
            alpha (float): Of the image tower, ``alpha * trained + (1 - alpha)
                * original`` (REFERENCE.md, section 4).

        Returns:
            dict[str, Tensor]: What ``open_clip.create_model(name,
            pretrained=FILE)`` reads.
        """
        weights = self.text_encoder.tower.state_dict()
        for objective in self.objectives.values():
            for name, value in objective.clip_weights.items():
                # Of a CLIP without a bias, open_clip reads none.
                if name in weights:
                    weights[name] = value.reshape(weights[name].shape)
        for name, value in self.averaged_tower(alpha).items():
            weights[f'visual.{name}'] = value
        return {k: v.detach().cpu().clone() for k, v in weights.items()}

    def averaged_tower(self, alpha: float) -> dict[str, Tensor]:
        """State of the image tower between original (0) and trained (1)."""
        original = self.towers.original.visual.state_dict()
        averaged = self.image_tower.visual.state_dict()
        for name, value in averaged.items():
            if value.is_floating_point():
                averaged[name] = torch.lerp(original[name], value, alpha)
        return averaged


def _check_names(objectives: Mapping[str, dict],
                 region_ways: Sequence[str]) -> None:
    if not objectives:
        raise ValueError('objectives: expected at least one, got none')
    check_loss_names('objectives', objectives)
    for way in region_ways:
        check_choice(REGION_WAYS, region_ways=way)


def _preprocessor(tower: nn.Module, image_size: tuple[int, int]) -> dict:
    """What brings BGR images to the tower, padded with its mean colour."""
    width, height = image_size
    return dict(
        type='mmdet.DetDataPreprocessor',
        mean=[255 * value for value in tower.mean],
        std=[255 * value for value in tower.std],
        bgr_to_rgb=True,
        batch_augments=[
            dict(type='mmdet.BatchFixedSizePad', size=(height, width))
        ])


def _frozen_copy(tower: nn.Module) -> nn.Module:
    """A copy that keeps its weights; frozen ones are shared, not copied."""
    shared = {id(p): p for p in tower.parameters() if not p.requires_grad}
    return copy.deepcopy(tower, shared).eval().requires_grad_(False)


def _accept_open_clip(module: CLIMOnCLIP, state_dict: dict, prefix: str,
                      *args) -> None:
    """Let a checkpoint of open_clip load in the model."""
    names = [key for key in state_dict if key.startswith(prefix)]
    if any(key.startswith(prefix + IMAGE_PREFIX) for key in names):
        return
    own_text = any(
        key.startswith(TEXT_PREFIX) for key, _ in module.named_parameters())
    for key in names:
        name = key[len(prefix):]
        value = state_dict.pop(key)
        if name.startswith('visual.'):
            name = IMAGE_PREFIX + name[len('visual.'):]
        elif own_text:
            name = TEXT_PREFIX + name
        else:
            # The frozen text encoder reads its weights itself.
            continue
        state_dict[prefix + name] = value


def _note_another_clip(module: CLIMOnCLIP, state_dict: dict, prefix: str,
                       *args) -> None:
    """Find out whether weights to be loaded are those of another CLIP.

    Frozen weights are what all refinements of a CLIP have in common. They
    may have been saved in half precision.
    """
    if module._of_another_clip is not None:
        # The original has its frozen weights already.
        return
    for name, own in module.named_parameters():
        loaded = state_dict.get(prefix + name)
        if name.startswith(IMAGE_PREFIX) and not own.requires_grad \
                and loaded is not None \
                and not torch.equal(own.half(), loaded.to(own.device).half()):
            module._of_another_clip = name
            return
