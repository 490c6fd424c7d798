# Licensed under the Apache License, Version 2.0.
"""Families of detectors and objectives that the golden losses are of."""
import copy
import sys
from pathlib import Path
from typing import NamedTuple, Optional

import mmdet

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_configs'))
from grounding_cases import shrink  # noqa: E402  isort: skip

CONFIGS = Path(mmdet.__file__).parent / '.mim/configs'
MM_GDINO = ('mm_grounding_dino/coco/'
            'grounding_dino_swin-t_finetune_16xb4_1x_coco_48_17.py')
GLIP = 'glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py'
CLASSES = ['cat', 'dog', 'cow', 'bus', 'cup']
EVERY = 99  # rectangles: all that a grid has


class Case(NamedTuple):
    """A detector, its reader and its objectives."""

    detector: str
    objectives: tuple
    reader: Optional[dict] = None

    @property
    def needs_text(self):
        return self.detector == MM_GDINO


def dense(source):
    return dict(type='mmdet_clim.DenseFeatureReader', source=source)


def grounding(source):
    return dict(type='mmdet_clim.GroundingReader', source=source)


REGIONS = ('caption', 'caption_of_proposals', 'tag', 'tag_of_tiles', 'pseudo')
# A cascade refines no more proposals than an objective looks at; here, all.
OF_ALL = ('caption', 'caption_of_proposals', 'tag_of_all', 'tag_of_tiles',
          'pseudo_of_all')
CASES = {
    'c4': Case('detector_cfg', REGIONS),
    'centernet2': Case('centernet2_cfg', OF_ALL),
    'fcos_classifier': Case('fcos_cfg', REGIONS),
    'fcos_neck': Case('fcos_cfg', ('caption', 'tag'), dense('neck')),
    'detr_encoder': Case('detr_cfg', REGIONS, dense('encoder')),
    'detr_query': Case('detr_cfg', ('caption', 'tag'), dense('query')),
    'c4_words': Case('words', ('bag', 'bag_of_tiles', 'distillation')),
    'mm_encoder': Case(MM_GDINO, ('caption', 'tag'), grounding('encoder')),
    'mm_query': Case(MM_GDINO, ('caption', 'tag'), grounding('query')),
    'mm_neck': Case(MM_GDINO, ('caption', ), grounding('neck')),
    'mm_grounding': Case(MM_GDINO,
                         ('grounding', 'grounding_of_tags', 'caption')),
    'mm_text': Case(MM_GDINO, ('grounding_by_text', )),
    'glip': Case(GLIP, ('grounding', 'grounding_of_tags', 'caption', 'tag')),
}


def build_case(name, fixture, config):
    """The config of a ``CLIMDetector``.

    Args:
        name (str): Of the case.
        fixture (Callable): A test's ``getfixturevalue``.
        config (Type): mmengine's ``Config``.
    """
    case = CASES[name]
    text_encoder = fixture('text_encoder_cfg')
    if case.detector.endswith('.py'):
        detector = shrink(
            config.fromfile(CONFIGS / case.detector).model,
            fixture('small_bert'))
    elif case.detector == 'words':
        text_encoder = fixture('tiny_clip_cfg')
        detector = copy.deepcopy(fixture('detector_cfg'))
        detector.roi_head.bbox_head.classifier = dict(
            type='mmdet_clim.PseudoWordClassifier',
            text_encoder=text_encoder,
            templates=('{}', ),
            num_words=2)
    else:
        detector = copy.deepcopy(fixture(case.detector))
    cfg = dict(
        type='mmdet_clim.CLIMDetector',
        detector=detector,
        text_encoder=text_encoder,
        objectives={
            key: objective(key, fixture, detector)
            for key in case.objectives
        })
    if case.reader is not None:
        cfg['region_reader'] = case.reader
    return cfg


def objective(key, fixture, detector):
    """The config of an objective."""
    bce = dict(type='mmdet_clim.CLIMRegionLoss', temperature=10., bias=-3.)
    infonce = dict(
        type='mmdet_clim.CLIMRegionLoss', kind='infonce', temperature=10.)
    tags = dict(vocabulary=CLASSES, templates=('{}', ))
    caption = dict(
        type='mmdet_clim.RegionCaptionObjective',
        num_compositions=EVERY,
        queue=dict(type='mmdet_clim.FeatureQueue', size=12, dim=8),
        loss=dict(bce, negative_weight=.5))
    tag = dict(
        type='mmdet_clim.RegionTagObjective',
        num_compositions=EVERY,
        loss=dict(bce, positive_reduction='sum'),
        **tags)
    if key == 'caption':
        return caption
    if key == 'caption_of_proposals':
        return dict(caption, regions='proposals', avg_factor=4., queue=None)
    if key == 'tag_of_all':
        return tag
    if key == 'tag':
        return dict(tag, max_proposals=3)
    if key == 'tag_of_tiles':
        return dict(tag, regions='tiles')
    if key.startswith('pseudo'):
        return dict(
            type='mmdet_clim.RegionPseudoLabelObjective',
            loss=bce,
            max_proposals=4 if key == 'pseudo' else 99,
            min_similarity=0.,
            **tags)
    if key.startswith('grounding'):
        return dict(
            type='mmdet_clim.GroundingObjective',
            num_compositions=0 if key == 'grounding_by_text' else EVERY,
            **{
                'grounding':
                dict(loss_weight=.5),
                'grounding_of_tags':
                dict(
                    texts='tags',
                    vocabulary=CLASSES,
                    num_negatives=1,
                    box_weight=0.),
                'grounding_by_text':
                dict(
                    texts='tags',
                    vocabulary=CLASSES,
                    num_negatives=1,
                    match='text')
            }[key])
    bags = dict(
        loss=infonce,
        bags=dict(word_dim=16, num_words=2, num_orders=1, drop_prob=0.),
        queue=dict(type='mmdet_clim.FeatureQueue', size=12, dim=12),
        proposals=dict(min_score=.4, min_area=0., max_objects=3))
    if key == 'distillation':
        return dict(
            bags,
            type='mmdet_clim.BagDistillationObjective',
            base_prob=1.,
            object_loss=infonce,
            image_encoder=dict(
                model=fixture('tiny_clip'),
                pretrained=str(fixture('tiny_clip_weights')),
                data_preprocessor=detector.data_preprocessor))
    return dict(
        bags,
        type='mmdet_clim.BagOfRegionsObjective',
        num_compositions=EVERY,
        regions='tiles' if key == 'bag_of_tiles' else 'proposals')
