# Licensed under the Apache License, Version 2.0.
"""One's own captions and a trained detector to a config that joins them."""
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from mmengine.config import Config, ConfigDict

from mmdet_clim.checks import check_range
from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim.models.text_encoders import DEFAULT_TEMPLATES

from .clim_config import PREFIX, add_clim
from .finetune_grounding import (
    detector_type,
    grounding_objectives,
    reads_prompts,
    set_prompts,
    tokenize_prompts,
)

# The balance of the demo's rows as published (docs/openmoji_results.md):
# whole images and mosaics beside boxes, weights and where biases start.
CAPTION_WEIGHT = 0.05
TAG_WEIGHT = 0.3
# The largest of all proposals of a tile is often a box around two objects.
MAX_PROPOSALS = 3
CAPTION_BIAS = -10.0
TAG_BIAS = -12.0
GRIDS = ((2, 2), (3, 3))
TILES = sum(rows * columns for rows, columns in GRIDS) / len(GRIDS)
# What finds objects already learns slowly (docs/openmoji_results.md); the
# language model of a grounding detector not at all, as in mmdet's own
# fine-tuning.
LR_MULT = dict(backbone=0.1, rpn_head=0.1, language_model=0.0)
# How often each captioned image is seen, and the bounds of a length that
# follows from that.
PASSES = 5
SHORTEST, LONGEST = 200, 20000


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
        phrases (Mapping[str, Sequence[str]]): What else some classes are
            called, by name and the name first.
        examples (Path, optional): Vectors of some classes, for
            ``ExampleTextEncoder``.
        example_weight (float): Theirs.
    """

    captions: Path
    images: Path
    names: Sequence[str]
    boxes: Path | None = None
    val_boxes: Path | None = None
    box_images: Path | None = None
    val_images: Path | None = None
    base_names: Sequence[str] = ()
    phrases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    examples: Path | None = None
    example_weight: float = 0.5

    @property
    def boxed_names(self) -> list[str]:
        """The base classes: those of boxes, or all where there are none."""
        base = [name for name in self.names if name in set(self.base_names)]
        return base or list(self.names)

    @property
    def vocabulary(self) -> dict:
        """As ``build_vocabulary`` reads it."""
        names, base = ([
            ' | '.join(self.phrases.get(name, (name, ))) for name in group
        ] for group in (self.names, self.boxed_names))
        return dict(names=names, base_names=base)

    @property
    def image_folders(self) -> tuple[Path, Path]:
        """Those of the images of ``boxes`` and of ``val_boxes``."""
        boxes = self.box_images or self.images
        return boxes.absolute(), (self.val_images or boxes).absolute()


def resize_scale(cfg: Config) -> tuple[int, int]:
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
        KeyError: If the config lacks a part.
        TypeError: If no part of the detector classifies by text, and it
            reads none.
    """
    needed = ['model', 'test_dataloader']
    if data.boxes is not None:
        needed.append('train_dataloader')
    for key in needed:
        if cfg.get(key) is None:
            raise KeyError(f'detector: expected a config with {key!r}, got '
                           f'{sorted(cfg.keys())}')
    cfg = copy.deepcopy(cfg)
    if 'detector' in cfg.model:
        cfg.model = cfg.model.detector
    for key in [key for key in cfg if key.startswith(PREFIX)]:
        # They tell of other data.
        cfg.pop(key)
    owners = list(classifying_parts(cfg.model))
    if not owners and not reads_prompts(cfg):
        raise TypeError(
            'detector: expected a head with a vocabulary and a classifier, '
            'such as mmdet_clim.ZeroShotBBoxHead, or a GLIP or Grounding '
            f'DINO, got {detector_type(cfg).__name__} without one')
    for owner in owners:
        if 'clip_temperature' in (cfg.model.get('roi_head') or {}):
            _keep_what_was_base(cfg.model.roi_head, owner, data)
        owner.vocabulary = data.vocabulary
        if data.examples is not None:
            owner.classifier.text_encoder = _with_examples(
                owner.classifier, data)
    box_images, val_images = data.image_folders
    base = data.boxed_names
    common = dict(
        type='mmdet_clim.OVCocoDataset',
        metainfo=dict(
            # GLIP takes no list.
            classes=tuple(data.names),
            base_classes=tuple(base),
            novel_classes=tuple(n for n in data.names if n not in base)))
    if data.boxes is None:
        _leave_out(cfg, 'train_dataloader', 'train_cfg', 'optim_wrapper',
                   'param_scheduler')
    else:
        cfg.train_dataloader.dataset = _in_place_of(
            cfg.train_dataloader.dataset,
            ConfigDict(
                common,
                ann_file=str(data.boxes.absolute()),
                data_prefix=dict(img=f'{box_images}/'),
                filter_cfg=dict(filter_empty_gt=True)))
    # Inference reads classes and pipeline of a test set that has no images.
    test = ConfigDict(
        common, test_mode=True, pipeline=cfg.test_dataloader.dataset.pipeline)
    if data.val_boxes is None:
        cfg.test_dataloader.dataset = test
        _leave_out(cfg, 'val_dataloader', 'val_evaluator', 'val_cfg',
                   'test_evaluator', 'test_cfg')
    else:
        test.update(
            ann_file=str(data.val_boxes.absolute()),
            data_prefix=dict(img=f'{val_images}/'))
        for split, loop in (('val', 'ValLoop'), ('test', 'TestLoop')):
            cfg[f'{split}_dataloader'] = ConfigDict(
                cfg.test_dataloader, dataset=copy.deepcopy(test))
            cfg[f'{split}_evaluator'] = dict(
                type='mmdet_clim.OVCocoMetric', ann_file=test.ann_file)
            cfg[f'{split}_cfg'] = dict(type=loop)
    if not owners:
        set_prompts(cfg, data.vocabulary, data.boxes is not None)
    return cfg


def _keep_what_was_base(roi_head: ConfigDict, owner: ConfigDict,
                        data: OwnData) -> None:
    """Tell an F-ViT, which trusts CLIP in classes without boxes, of which.

    Without boxes all classes count as base, which it would take for boxes.
    """
    known = build_vocabulary(
        roi_head.get('trained_vocabulary') or owner.vocabulary).base_names
    boxed = () if data.boxes is None else data.base_names
    roi_head.trained_vocabulary = list(dict.fromkeys([*known, *boxed]))


def _with_examples(classifier: ConfigDict, data: OwnData) -> ConfigDict:
    """A text encoder that knows examples of some classes."""
    return ConfigDict(
        type='mmdet_clim.ExampleTextEncoder',
        encoder=classifier.text_encoder,
        file=str(cast(Path, data.examples).absolute()),
        templates=classifier.get('templates', DEFAULT_TEMPLATES),
        weight=data.example_weight)


def _leave_out(cfg: Config, *keys: str) -> None:
    """Say that a config has none, whatever it inherited."""
    for key in keys:
        cfg[key] = None


def finetune_config(cfg: Config,
                    checkpoint: Path,
                    data: OwnData,
                    iterations: int = 1000,
                    batch_size: int = 8,
                    lr: float = 1e-4,
                    workers: int = 2,
                    lr_mult: Mapping[str, float] | None = None,
                    ema: bool = False,
                    old_words: Sequence[str] = (),
                    distil: float = 0.0,
                    best: bool = False) -> Config:
    """A config that trains a detector on one's own captions with CLIM.

    A batch is half of boxed images, where there are any; of the rest, a
    quarter are whole captioned images and the others mosaics, at least one of
    each. A detector that reads its classes as a text gets mosaics alone, as
    grounding data.

    Args:
        cfg (Config): Of a detector that classifies by text or reads one,
            wrapped or not.
        checkpoint (Path): Its weights.
        data (OwnData): What to learn.
        iterations (int): Of the training.
        batch_size (int): Samples of a step, at least 3 with boxes and 2
            without; one less where the detector reads its classes.
        lr (float): Of AdamW.
        workers (int): Processes that load data.
        lr_mult (Mapping[str, float], optional): Part of a weight's name to
            the factor of its learning rate, beside those of ``LR_MULT``; 0
            keeps a part as it is.
        ema (bool): Whether checkpoints hold the mean of the weights over
            about the last tenth of the training.
        old_words (Sequence[str]): What ``distil`` keeps.
        distil (float): Weight of the original's responses to them.
        best (bool): Whether to evaluate at every checkpoint and keep the
            best one.

    Returns:
        Config: To hand to MMEngine's ``Runner``.

    Raises:
        TypeError: If no part of the detector classifies by text, and it
            reads none.
        ValueError: If ``batch_size`` or ``iterations`` is too small.
    """
    has_boxes = data.boxes is not None
    check_range(1, iterations=iterations)
    plain = plain_config(cfg, data)
    scale = resize_scale(plain)
    prompted = reads_prompts(plain)
    whole_images = sees_whole_images(plain, distil)
    ratio = _ratio(batch_size, has_boxes, whole_images)
    fragment = dict(
        _sources(data, scale, whole_images),
        **(_prompts if prompted else _texts)(plain, data))
    if prompted:
        fragment['clim_mosaic_dataset']['pipeline'].append(
            tokenize_prompts(plain, fragment['clim_objectives']))
    if distil:
        fragment['clim_objectives']['old_words'] = _old_words(
            plain, checkpoint, old_words, distil)
        if prompted:
            fragment['clim_objectives']['old_words']['new_words'] = data.names
            fragment['clim_branches'] = dict(
                captions=['old_words'],
                mosaic=list(fragment['clim_objectives']))
    boxed = max(ratio[0], 1)
    plain.train_dataloader = dict(
        batch_size=boxed,
        num_workers=workers,
        persistent_workers=workers > 0,
        # Without boxes, the place of a source that is left out again.
        dataset=plain.train_dataloader.dataset if data.boxes else {})
    new = add_clim(
        plain, Config(dict(fragment, clim_source_ratio=[boxed, *ratio[1:]])))
    if data.boxes is None:
        loader = new.train_dataloader
        loader.dataset.datasets = loader.dataset.datasets[1:]
        loader.sampler.source_ratio = ratio[1:]
        loader.batch_size = batch_size
    _set_schedule(new, iterations, lr)
    if ema:
        new.custom_hooks.append(
            dict(type='EMAHook', momentum=min(0.5, 10 / iterations)))
    factors = {**LR_MULT, **(lr_mult or {})}
    new.model.frozen = [
        part for part, factor in factors.items()
        if not factor and (prompted or part != 'language_model')
    ]
    new.optim_wrapper.paramwise_cfg = dict(custom_keys={
        part: dict(lr_mult=factor)
        for part, factor in factors.items() if factor
    })
    if data.val_boxes is None:
        _leave_out(new, 'test_dataloader')
        if best:
            raise ValueError('--best: expected --val-boxes to evaluate on')
    if best:
        new.train_cfg.val_interval = new.default_hooks.checkpoint.interval
        new.default_hooks.checkpoint.update(
            save_best='ov_coco/all_ap50', rule='greater')
    new.load_from = str(checkpoint.absolute())
    new.resume = False
    return new


def sees_whole_images(cfg: Config, distil: float) -> bool:
    """Whether a part of each batch is whole captioned images.

    A detector that reads a prompt learns from mosaics alone; what it knew is
    kept in whole images, too, where objects are as large as in a test.

    Args:
        cfg (Config): See :func:`plain_config`.
        distil (float): See :func:`finetune_config`.
    """
    return distil > 0 or not reads_prompts(cfg)


def default_iterations(images: int, batch_size: int, has_boxes: bool,
                       whole_images: bool) -> int:
    """A length in which each captioned image is seen some times.

    Args:
        images (int): Captioned images.
        batch_size (int): Samples of a step of all processes.
        has_boxes (bool): Whether a part of them is boxed images.
        whole_images (bool): Whether a part is whole captioned images.
    """
    _, *captioned = _ratio(batch_size, has_boxes, whole_images)
    seen = captioned[-1] * TILES + sum(captioned[:-1])
    wanted = math.ceil(PASSES * images / seen / 10) * 10
    return min(max(wanted, SHORTEST), LONGEST)


def _ratio(batch_size: int, has_boxes: bool, whole_images: bool) -> list[int]:
    """Samples of boxes, of whole captioned images and of mosaics."""
    boxes = batch_size // 2 if has_boxes else 0
    captioned = batch_size - boxes
    kinds = (['with boxes'] * has_boxes +
             ['whole and captioned'] * whole_images + ['a mosaic'])
    if batch_size < len(kinds):
        raise ValueError(
            f'batch_size: expected at least {len(kinds)}, one image each that '
            f'is {", ".join(kinds)}; got {batch_size}')
    if not whole_images:
        return [boxes, captioned]
    whole = max(1, captioned // 4)
    return [boxes, whole, captioned - whole]


def classifying_parts(part) -> Iterator[ConfigDict]:
    """The configs of parts with a vocabulary and a text classifier.

    Args:
        part: A model's config, or a part of one.
    """
    if isinstance(part, (list, tuple)):
        for child in part:
            yield from classifying_parts(child)
    elif isinstance(part, dict):
        if 'vocabulary' in part and 'classifier' in part:
            yield part
            return
        for child in part.values():
            yield from classifying_parts(child)


def _in_place_of(host: ConfigDict, own: ConfigDict) -> ConfigDict:
    """A data set with the pipeline of a host's, which may mix images."""
    if str(host.type).endswith('MultiImageMixDataset'):
        return ConfigDict(host, dataset=_in_place_of(host.dataset, own))
    return ConfigDict(own, pipeline=_pipeline(host))


def _pipeline(dataset: ConfigDict) -> list:
    """The pipeline of a training set, also of a wrapped one."""
    while 'pipeline' not in dataset:
        inner = dataset.get('dataset') or dataset.datasets[0]
        dataset = inner
    return dataset.pipeline


def _sources(data: OwnData, scale: tuple[int, int],
             whole_images: bool) -> dict:
    """The captioned images as mosaics, and whole, at the detector's size."""
    side = min(scale)
    tile = (side // 2, side // 2)
    source = dict(
        type='mmdet_clim.ImageTextDataset',
        vocabulary=data.vocabulary,
        ann_file=str(data.captions.absolute()),
        data_prefix=dict(img=f'{data.images.absolute()}/'))
    sources = {}
    if whole_images:
        sources['clim_caption_dataset'] = dict(
            source,
            pipeline=[
                dict(type='mmdet_clim.LoadImageText', scale=(side, side)),
                dict(type='mmdet.Resize', scale=(side, side), keep_ratio=True),
                dict(
                    type='mmdet_clim.PackRegionTextInputs', branch='captions')
            ])
    sources['clim_mosaic_dataset'] = dict(
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
        ])
    return sources


def _prompts(cfg: Config, data: OwnData) -> dict:
    """Objectives of a detector that reads its classes as a text."""
    return dict(
        clim_text_encoder=None,
        clim_objectives=grounding_objectives(cfg, data.vocabulary))


def _texts(cfg: Config, data: OwnData) -> dict:
    """Objectives and texts of a detector that classifies by text."""
    classifier = next(classifying_parts(cfg.model)).classifier
    biased = classifier.get('bias', -20.0) is not None
    loss = dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='bce',
        temperature=classifier.get('temperature', 25.0))
    return dict(
        clim_text_encoder=classifier.text_encoder,
        clim_objectives=dict(
            caption=dict(
                type='mmdet_clim.RegionCaptionObjective',
                num_compositions=0,
                loss=dict(
                    loss,
                    bias=CAPTION_BIAS if biased else None,
                    negative_weight=0.125,
                    loss_weight=CAPTION_WEIGHT)),
            tag=dict(
                type='mmdet_clim.RegionTagObjective',
                vocabulary=data.vocabulary,
                templates=classifier.get('templates', DEFAULT_TEMPLATES),
                num_compositions=0,
                max_proposals=MAX_PROPOSALS,
                loss=dict(
                    loss,
                    bias=TAG_BIAS if biased else None,
                    positive_reduction='sum',
                    loss_weight=TAG_WEIGHT))))


def _old_words(cfg: Config, checkpoint: Path, old_words: Sequence[str],
               weight: float) -> dict:
    """The objective that keeps the original's responses."""
    if not old_words:
        raise ValueError(
            '--distil: expected classes to keep (--keep), got none')
    objective = dict(
        type='mmdet_clim.OldWordsObjective',
        # Detection transformers write into their configs.
        detector=copy.deepcopy(cfg.model),
        checkpoint=str(checkpoint.absolute()),
        vocabulary=list(old_words),
        loss_weight=weight)
    for owner in classifying_parts(objective['detector']):
        # Dense heads and DINO look where their own classes are.
        owner.vocabulary = list(old_words)
        objective['templates'] = owner.classifier.get('templates',
                                                      DEFAULT_TEMPLATES)
    return objective


def _set_schedule(cfg: Config, iterations: int, lr: float) -> None:
    """AdamW with a warm-up and a cosine, by iterations."""
    # MMEngine reaches the full rate one iteration before the end.
    warm_up = max(2, iterations // 20)
    cfg.train_cfg = dict(
        type='mmdet_clim.ResumableTrainLoop',
        max_iters=iterations,
        val_interval=iterations)
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
    tenth = max(1, iterations // 10)
    cfg.setdefault('default_hooks', ConfigDict())
    cfg.default_hooks.checkpoint = dict(
        type='mmdet_clim.AtomicCheckpointHook',
        by_epoch=False,
        interval=tenth,
        # One is written while the other is whole.
        max_keep_ckpts=2)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=min(50, tenth))
    cfg.custom_hooks = [
        dict(type='mmdet_clim.IterationSeedHook'),
        dict(type='mmdet_clim.UnreachedWeightsHook'),
        dict(type='mmdet.CheckInvalidLossHook', interval=min(50, tenth))
    ]
    cfg.log_processor = dict(
        type='LogProcessor', window_size=50, by_epoch=False)
    cfg.pop('auto_scale_lr', None)
