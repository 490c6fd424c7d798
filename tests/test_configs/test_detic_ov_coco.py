# Licensed under the Apache License, Version 2.0.
"""The published recipes, two iterations each on OpenMoji-COCO.

Only the data, the sizes of images and the sizes of batches differ from the
configs, the number of RoIs per image among them. Two files that can not be
downloaded here are made: a ResNet-50 with random weights, and a CLIP that has
the name and the width of ViT-B/32 and is otherwise small.
"""
import pytest
import torch
from mmdet.models.backbones import ResNet
from mmengine.config import Config
from mmengine.registry import MODELS

BASE = 'detic_r50-caffe-c4_90k_ov-coco_base'
SECOND_STAGE_NAME = 'detic_r50-caffe-c4_45k_ov-coco'
ABLATION_NAME = 'detic_r50-c4_ov-coco'
# Config, samples per source, losses beside the detector's own. The two
# between them are made of the same parts.
SECOND_STAGE = [
    ('captions', [1, 1], ['captions.caption']),
    ('captions-tags_clim', [1, 1, 1],
     ['captions.caption', 'captions.tag', 'mosaic.caption', 'mosaic.tag']),
]
DATA = 'train_dataloader.dataset.datasets'
# Config, what it changes of the recipe whose regions are those of mosaics or,
# without clim_ in its name, whole images. None: not there.
ABLATIONS = {
    'clim_grid-2x2': {
        f'{DATA}.2.pipeline.3.grids': ((2, 2), )
    },
    'clim_grid-3x3': {
        f'{DATA}.2.pipeline.3.grids': ((3, 3), )
    },
    'clim_grid-4x4': {
        f'{DATA}.2.pipeline.3.grids': ((4, 4), )
    },
    'clim_no-composition': {
        'model.objectives.caption.num_compositions': 0,
        'model.objectives.tag.num_compositions': 0
    },
    'clim_tags-only': {
        'model.objectives.caption': None,
        'model.branches.captions': ['tag'],
        'model.branches.mosaic': ['tag']
    },
    'clim_proposals': {
        'model.objectives.caption.regions': 'proposals'
    },
    'clim_class-names': {
        'model.objectives.caption': None,
        'model.objectives.tag.regions': 'tiles',
        'model.branches.captions': ['tag'],
        'model.branches.mosaic': ['tag']
    },
    'pseudo-labels': {
        'model.objectives.caption':
        None,
        'model.objectives.tag':
        None,
        'model.objectives.pseudo_label':
        dict(
            type='mmdet_clim.RegionPseudoLabelObjective',
            vocabulary=dict(dataset='mmdet_clim.OVCoco80Dataset'),
            templates='vild',
            loss=dict(
                type='mmdet_clim.CLIMRegionLoss',
                kind='bce',
                temperature=25.0,
                bias=-20.0,
                positive_reduction='sum',
                loss_weight=0.1 / 3)),
        'model.branches.captions': ['pseudo_label']
    },
    'mosaic-augmentation': {
        f'{DATA}.0.pipeline': [
            dict(type='LoadImageFromFile'),
            dict(type='mmdet.LoadAnnotations', with_bbox=True),
            dict(type='mmdet.CachedMosaic', img_scale=(400, 400), prob=0.5),
            dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True),
            dict(type='mmdet.RandomFlip', prob=0.5),
            dict(type='mmdet.PackDetInputs'),
        ]
    },
}


@pytest.fixture(scope='module')
def files(openmoji_root, clip_checkpoint, tmp_path_factory):
    """The environment variables of the configs, set to files made here."""
    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    resnet = ResNet(50, style='caffe', norm_eval=True)
    resnet.init_weights()
    torch.save(resnet.state_dict(), folder / 'resnet50_caffe.pth')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OV_COCO_ROOT', f'{openmoji_root}/')
        patch.setenv('RESNET50_CAFFE', str(folder / 'resnet50_caffe.pth'))
        yield folder


@pytest.fixture(scope='module')
def read_config(files, repository, shorten):
    """Read a config by its name: two iterations on small images."""

    def read(name, source_ratio=None):
        cfg = Config.fromfile(repository / f'configs/detic/ov_coco/{name}.py')
        shorten(cfg, 6.25, source_ratio)
        cfg.val_dataloader.batch_size = 4
        detector = cfg.model.get('detector', cfg.model)
        detector.train_cfg.rpn_proposal.max_per_img = 32
        detector.train_cfg.rcnn.sampler.num = 8
        detector.test_cfg.rpn.max_per_img = 4
        return cfg

    return read


def check(runner, record, expected):
    """What holds for every recipe after two iterations."""
    names = {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'}
    names |= {f'{name}.loss' for name in expected}
    assert len(record.losses) == 2
    for losses in record.losses:
        parts = {k: v for k, v in losses.items() if 'loss' in k}
        total = parts.pop('loss')
        assert set(parts) == names
        assert all(0 < v < 100 for v in parts.values()), parts
        assert total == pytest.approx(sum(parts.values()), rel=1e-4)
    # SGD 0.02, warmed up from a thousandth of it in 1000 steps.
    assert record.rates == pytest.approx([.02 * .001, .02 * (.001 + .001)],
                                         rel=1e-3)
    metrics = {
        name: buffer.current()
        for name, buffer in runner.message_hub.log_scalars.items()
        if name.startswith('val/ov_coco/')
    }
    for group in ('base', 'novel', 'all'):
        assert 0 <= metrics[f'val/ov_coco/{group}_ap50'] < 20


@pytest.fixture(scope='module')
def base(read_config, train, tmp_path_factory):
    """The box-supervised recipe, trained."""
    work_dir = tmp_path_factory.mktemp(BASE)
    return (*train(read_config(BASE), work_dir), work_dir)


def test_the_base_recipe(base, files):
    runner, record, work_dir = base
    check(runner, record, [])
    # The file of the backbone fills the backbone and the shared head, of
    # which the stem and the first stage stay as they are.
    given = torch.load(files / 'resnet50_caffe.pth')
    state = torch.load(work_dir / 'iter_2.pth')['state_dict']
    for name, value in given.items():
        own = f'backbone.{name}'
        if name.startswith('layer4'):
            own = f'roi_head.shared_head.{name}'
        if name.startswith(('conv1', 'bn1', 'layer1')):
            assert torch.equal(state.pop(own), value), name
        else:
            torch.testing.assert_close(
                state.pop(own), value, rtol=.05, atol=.05, msg=name)
    assert not [name for name in state if 'backbone' in name]
    # 80 classes, known by embeddings of CLIP's width alone.
    classifier = runner.model.roi_head.bbox_head.fc_cls
    assert classifier.class_embeddings.shape == (80, 512)
    assert len(classifier.templates) == 63
    assert classifier.projection.weight.shape == (512, 2048)
    assert (classifier.temperature,
            runner.model.test_cfg.rcnn.score_thr) == (25, 1e-4)
    assert classifier.logit_bias.item() == pytest.approx(-20, abs=.01)


@pytest.mark.parametrize(
    'name, source_ratio, losses',
    SECOND_STAGE,
    ids=[row[0] for row in SECOND_STAGE])
def test_a_second_stage(base, read_config, train, repository, tmp_path, name,
                        source_ratio, losses):
    name = f'{SECOND_STAGE_NAME}_{name}'
    published = Config.fromfile(repository /
                                f'configs/detic/ov_coco/{name}.py')
    assert published.load_from.endswith(f'{BASE}/iter_90000.pth')
    cfg = read_config(name, source_ratio)
    cfg.load_from = str(base[2] / 'iter_2.pth')
    runner, record = train(cfg, tmp_path)
    check(runner, record, losses)
    state = torch.load(tmp_path / 'iter_2.pth')['state_dict']
    # It went on from the base recipe's weights ...
    plain = torch.load(base[2] / 'iter_2.pth')['state_dict']
    for key, value in plain.items():
        torch.testing.assert_close(
            state[f'detector.{key}'], value, rtol=.05, atol=.05, msg=key)
    # ... and the captions of two steps are in the queue: one per whole
    # image, one per tile.
    queue = runner.model.objectives['caption'].queue
    assert queue.dim == 512 and queue.size == 256
    if 'mosaic.caption' in losses:
        assert 2 * (1 + 4) <= len(queue) <= 2 * (1 + 16)
    else:
        assert len(queue) == 2
    assert not [key for key in state if 'text_encoder' in key]


@pytest.mark.parametrize('name, expected', ABLATIONS.items())
def test_an_ablation_differs_in_what_it_says(files, repository, differences,
                                             name, expected):
    folder = repository / 'configs/detic/ov_coco'
    with_mosaics = '_clim' if name.startswith('clim') else ''
    recipe = Config.fromfile(
        folder / f'{SECOND_STAGE_NAME}_captions-tags{with_mosaics}.py')
    cfg = Config.fromfile(folder / f'ablation/{ABLATION_NAME}_{name}.py')
    assert differences(cfg, recipe) == expected
    objectives = MODELS.build(cfg.model).objectives
    assert set(objectives) == {
        name
        for names in cfg.model.branches.values()
        for name in names
    }


def test_each_config_of_the_folder_is_tested(repository):
    assert {f'{ABLATION_NAME}_{name}'
            for name in ABLATIONS} == {
                file.stem
                for file in (repository /
                             'configs/detic/ov_coco/ablation').glob('*.py')
            }


@pytest.mark.parametrize('name, source_ratio, expected', [
    ('clim_proposals', [1, 1, 1],
     ['captions.caption', 'captions.tag', 'mosaic.caption', 'mosaic.tag']),
    ('pseudo-labels', [1, 1], ['captions.pseudo_label']),
    ('mosaic-augmentation', [1, 1], ['captions.caption', 'captions.tag']),
])
def test_an_ablation_trains(read_config, train, tmp_path, name, source_ratio,
                            expected):
    cfg = read_config(f'ablation/{ABLATION_NAME}_{name}', source_ratio)
    # 300 MB, as a second stage writes them.
    cfg.default_hooks.checkpoint = None
    _, record = train(cfg, tmp_path)
    assert len(record.losses) == 2
    for losses in record.losses:
        names = {key for key in losses if key.endswith('.loss')}
        assert names == {f'{of}.loss' for of in expected}
        assert 0 < losses['loss'] < 100
