# Licensed under the Apache License, Version 2.0.
"""One's own captions and a trained detector to a config that joins them."""
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

from mmengine.config import Config, ConfigDict

from .clim_config import PREFIX, add_clim

# The balance of the demo (docs/openmoji_results.md): whole images and
# mosaics beside boxes, weights and where biases start.
CAPTION_WEIGHT = 0.05
TAG_WEIGHT = 0.2
CAPTION_BIAS = -10.0
TAG_BIAS = -12.0
GRIDS = ((2, 2), (3, 3))


@dataclass
class OwnData:
    """What a detector is to learn.

    Args:
        captions (Path): As ``prepare_image_text`` writes it, with tags.
        images (Path): Folder of the captioned images.
        names (Sequence[str]): The classes which the tags index.
        boxes (Path, optional): COCO JSON with boxes of some of the classes.
        val_boxes (Path, optional): COCO JSON to evaluate on.
        box_images (Path, optional): Folder of the images of ``boxes``; that
            of the captioned ones if not given.
        val_images (Path, optional): Folder of the images of ``val_boxes``;
            that of ``boxes`` if not given.
        base_names (Sequence[str]): The classes that ``boxes`` has boxes of.
    """

    captions: Path
    images: Path
    names: Sequence[str]
    boxes: Optional[Path] = None
    val_boxes: Optional[Path] = None
    box_images: Optional[Path] = None
    val_images: Optional[Path] = None
    base_names: Sequence[str] = ()

    @property
    def vocabulary(self) -> dict:
        """As ``build_vocabulary`` reads it."""
        base = [name for name in self.names if name in set(self.base_names)]
        return dict(names=list(self.names), base_names=base or self.names)


def resize_scale(cfg: Config) -> Tuple[int, int]:
    """Sides in pixels that a config's test images are resized into.

    Raises:
        ValueError: If its test pipeline has no ``Resize`` that keeps the
            aspect ratio.
    """
    for transform in cfg.test_dataloader.dataset.pipeline:
        if transform.type.endswith('Resize') and transform.get('keep_ratio'):
            return tuple(transform.scale)
    raise ValueError('test pipeline: expected a Resize with keep_ratio=True, '
                     'got none')


def plain_config(cfg: Config, data: OwnData) -> Config:
    """The detector of a config, wrapped or not, with other classes.

    Args:
        cfg (Config): It is not changed.
        data (OwnData): Its classes replace those of every part that
            classifies by text; its boxes, where there are any, those of the
            training set, of validation and of test.

    Returns:
        Config: Of the plain detector.

    Raises:
        TypeError: If no part of the detector classifies by text.
    """
    cfg = copy.deepcopy(cfg)
    if 'detector' in cfg.model:
        cfg.model = cfg.model.detector
    for key in [key for key in cfg if key.startswith(PREFIX)]:
        # They tell of other data.
        cfg.pop(key)
    owners = list(_classifying(cfg.model))
    if not owners:
        raise TypeError(
            'detector: expected a head with a vocabulary and a classifier, '
            'such as mmdet_clim.ZeroShotBBoxHead, got none')
    for owner in owners:
        owner.vocabulary = data.vocabulary
    box_images = data.box_images or data.images
    val_images = data.val_images or box_images
    base = data.vocabulary['base_names']
    common = dict(
        type='mmdet_clim.OVCocoDataset',
        metainfo=dict(
            classes=list(data.names),
            base_classes=base,
            novel_classes=[n for n in data.names if n not in base]))
    pipeline = _pipeline(cfg.train_dataloader.dataset)
    cfg.train_dataloader.dataset = ConfigDict(
        common,
        ann_file=str(data.boxes),
        data_prefix=dict(img=f'{box_images}/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=pipeline)
    for split in ('val', 'test'):
        dataset = ConfigDict(
            common,
            ann_file=str(data.val_boxes),
            data_prefix=dict(img=f'{val_images}/'),
            test_mode=True,
            pipeline=cfg.test_dataloader.dataset.pipeline)
        evaluator = dict(
            type='mmdet_clim.OVCocoMetric', ann_file=str(data.val_boxes))
        cfg[f'{split}_dataloader'] = ConfigDict(
            cfg.test_dataloader, dataset=dataset)
        cfg[f'{split}_evaluator'] = evaluator
    return cfg


def finetune_config(cfg: Config,
                    checkpoint: Path,
                    data: OwnData,
                    iterations: int = 1000,
                    batch_size: int = 8,
                    lr: float = 1e-4) -> Config:
    """A config that trains a detector on one's own captions with CLIM.

    A batch is half of boxed images, where there are any; of the rest, a
    quarter are whole captioned images and the others mosaics, at least one of
    each.

    Args:
        cfg (Config): Of a detector that classifies by text, wrapped or not.
        checkpoint (Path): Its weights.
        data (OwnData): What to learn.
        iterations (int): Of the training.
        batch_size (int): Samples of a step, at least 3 with boxes and 2
            without.
        lr (float): Of AdamW.

    Returns:
        Config: To hand to MMEngine's ``Runner``.

    Raises:
        TypeError: If no part of the detector classifies by text.
        ValueError: If ``batch_size`` or ``iterations`` is too small.
    """
    ratio = _ratio(batch_size, data.boxes is not None)
    if iterations < 1:
        raise ValueError(f'iterations: expected at least 1, got {iterations}')
    scale = resize_scale(cfg)
    plain = plain_config(cfg, data)
    boxed = max(ratio[0], 1)
    plain.train_dataloader = dict(
        batch_size=boxed,
        num_workers=2,
        persistent_workers=True,
        dataset=plain.train_dataloader.dataset)
    new = add_clim(
        plain,
        Config(
            dict(
                _fragment(plain, data, scale),
                clim_source_ratio=[boxed, *ratio[1:]])))
    if data.boxes is None:
        loader = new.train_dataloader
        loader.dataset.datasets = loader.dataset.datasets[1:]
        loader.sampler.source_ratio = ratio[1:]
        loader.batch_size = batch_size
    _set_schedule(new, iterations, lr)
    if data.val_boxes is None:
        for key in ('val', 'test'):
            for part in ('dataloader', 'evaluator', 'cfg'):
                new[f'{key}_{part}'] = None
    new.load_from = str(checkpoint)
    new.resume = False
    return new


def _ratio(batch_size: int, has_boxes: bool) -> List[int]:
    """Samples of boxes, of whole captioned images and of mosaics."""
    boxes = batch_size // 2 if has_boxes else 0
    captioned = batch_size - boxes
    if captioned < 2 or (has_boxes and not boxes):
        least = 3 if has_boxes else 2
        raise ValueError(
            f'batch_size: expected at least {least}, got {batch_size}')
    whole = max(1, captioned // 4)
    return [boxes, whole, captioned - whole]


def _classifying(part) -> Iterator[ConfigDict]:
    """The configs of parts with a vocabulary and a text classifier."""
    if isinstance(part, (list, tuple)):
        for child in part:
            yield from _classifying(child)
    elif isinstance(part, dict):
        if 'vocabulary' in part and 'classifier' in part:
            yield part
            return
        for child in part.values():
            yield from _classifying(child)


def _pipeline(dataset: ConfigDict) -> list:
    """The pipeline of a training set, also of a wrapped one."""
    while 'pipeline' not in dataset:
        inner = dataset.get('dataset') or dataset.datasets[0]
        dataset = inner
    return dataset.pipeline


def _fragment(cfg: Config, data: OwnData, scale: Tuple[int, int]) -> dict:
    """What ``add_clim`` takes, for the detector's own texts and sizes."""
    classifier = next(_classifying(cfg.model)).classifier
    templates = classifier.get('templates', ('a photo of a {}.', ))
    temperature = classifier.get('temperature', 25.0)
    biased = classifier.get('bias', -20.0) is not None
    side = min(scale)
    tile = (side // 2, side // 2)
    source = dict(
        type='mmdet_clim.ImageTextDataset',
        vocabulary=data.vocabulary,
        ann_file=str(data.captions),
        data_prefix=dict(img=f'{data.images}/'))
    loss = dict(
        type='mmdet_clim.CLIMRegionLoss', kind='bce', temperature=temperature)
    return dict(
        clim_text_encoder=classifier.text_encoder,
        clim_caption_dataset=dict(
            source,
            pipeline=[
                dict(type='mmdet_clim.LoadImageText', scale=(side, side)),
                dict(type='mmdet.Resize', scale=(side, side), keep_ratio=True),
                dict(
                    type='mmdet_clim.PackRegionTextInputs', branch='captions')
            ]),
        clim_mosaic_dataset=dict(
            source,
            pipeline=[
                dict(type='mmdet_clim.LoadImageText', scale=tile),
                dict(type='mmdet.Resize', scale=tile, keep_ratio=True),
                dict(
                    type='mmdet_clim.MosaicCLIM',
                    grids=GRIDS,
                    tile_size=tile,
                    out_size=(side, side),
                    cache_size=128),
                dict(type='mmdet_clim.PackRegionTextInputs', branch='mosaic')
            ]),
        clim_objectives=dict(
            caption=dict(
                type='mmdet_clim.RegionCaptionObjective',
                loss=dict(
                    loss,
                    bias=CAPTION_BIAS if biased else None,
                    negative_weight=0.125,
                    loss_weight=CAPTION_WEIGHT)),
            tag=dict(
                type='mmdet_clim.RegionTagObjective',
                vocabulary=data.vocabulary,
                templates=templates,
                num_compositions=0,
                loss=dict(
                    loss,
                    bias=TAG_BIAS if biased else None,
                    positive_reduction='sum',
                    loss_weight=TAG_WEIGHT))))


def _set_schedule(cfg: Config, iterations: int, lr: float) -> None:
    """AdamW with a warm-up and a cosine, by iterations."""
    # MMEngine reaches the full rate one iteration before the end.
    warm_up = max(2, iterations // 20)
    cfg.train_cfg = dict(
        type='mmdet_clim.ResumableTrainLoop',
        max_iters=iterations,
        val_interval=iterations)
    cfg.val_cfg, cfg.test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
    cfg.optim_wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=lr, weight_decay=0.05),
        clip_grad=dict(max_norm=5, norm_type=2))
    cfg.param_scheduler = [
        dict(
            type='LinearLR',
            start_factor=0.01,
            by_epoch=False,
            begin=0,
            end=warm_up),
        dict(
            type='CosineAnnealingLR',
            by_epoch=False,
            begin=warm_up,
            end=max(iterations, warm_up + 2),
            eta_min_ratio=0.02)
    ]
    cfg.default_hooks.checkpoint = dict(
        type='mmdet_clim.AtomicCheckpointHook',
        by_epoch=False,
        interval=iterations,
        max_keep_ckpts=1)
    cfg.default_hooks.logger = dict(
        type='LoggerHook', interval=max(1, min(50, iterations // 10)))
    cfg.custom_hooks = [dict(type='mmdet_clim.IterationSeedHook')]
    cfg.log_processor = dict(
        type='LogProcessor', window_size=50, by_epoch=False)
    cfg.pop('auto_scale_lr', None)
