# Licensed under the Apache License, Version 2.0.
"""The small FCOS and DINO on OpenMoji-COCO, and the tag loss they share."""
import pytest
from mmengine.config import Config

from mmdet_clim.engine import captioned_views
from mmdet_clim.models.region_readers import DenseFeatureReader
from mmdet_clim.registry import MODELS

FCOS, DINO = 'fcos_r18_256', 'dino_r18_256'
SOFTMAX = 'captions-tags_clim_best_softmax'
#: Of each: iterations of its first stage, its losses of boxes, the layer that
#: classifies, its best config, and what the tags' loss has beside others.
DETECTORS = {
    FCOS: (1500, {'loss_cls', 'loss_bbox',
                  'loss_centerness'}, 'bbox_head.conv_cls', SOFTMAX, ()),
    DINO: (2000, {
        f'{part}{loss}'
        for part in ('', 'd0.', 'enc_', 'dn_', 'd0.dn_')
        for loss in ('loss_cls', 'loss_bbox', 'loss_iou')
    }, 'bbox_head.cls_branches.1', 'captions-tags_clim_query',
           ('tag.query', )),
}


@pytest.fixture
def read_config(openmoji_root, repository, monkeypatch):
    """Read a config by its name, with data made here."""
    monkeypatch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
    return lambda name: Config.fromfile(repository /
                                        f'configs/openmoji/{name}.py')


@pytest.mark.parametrize('detector', DETECTORS)
def test_both_stages_train(read_config, shorten, train, tmp_path, detector):
    iterations, own, classifier, best, more = DETECTORS[detector]
    own = own | {'loss'}
    first = f'{detector}_base'
    cfg = read_config(first)
    assert cfg.train_cfg.max_iters == iterations
    shorten(cfg, 2)
    base, record = train(cfg, tmp_path / first)
    assert [set(losses) - {'grad_norm'}
            for losses in record.losses] == [own] * 2

    cfg = read_config(f'{detector}_{best}')
    assert cfg.load_from == f'work_dirs/{first}/iter_{iterations}.pth'
    shorten(cfg, 2, [1, 1, 1])
    cfg.load_from = str(tmp_path / first / 'iter_2.pth')
    runner, record = train(cfg, tmp_path / best)
    for losses in record.losses:
        assert {name
                for name in losses if 'loss' in name} == own | {
                    f'{branch}.{objective}.loss'
                    for branch in ('captions', 'mosaic')
                    for objective in ('caption', 'tag', *more)
                }
        assert 0 < losses['loss'] < 1000
    # Texts train the layer that classifies, not the frozen backbone.
    before, after = (
        m.state_dict() for m in (base.model, runner.model.detector))
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert f'{classifier}.projection.weight' in moved
    assert not any(name.startswith('backbone') for name in moved)


@pytest.mark.parametrize('name', [
    f'{FCOS}_{SOFTMAX}', 'demo_clim_best_softmax',
    'demo_captions-tags_best_softmax'
])
def test_the_tags_are_told_apart_by_a_softmax(read_config, name):
    tag = read_config(name).model.objectives.tag
    assert tag.loss == dict(
        type='mmdet_clim.CLIMRegionLoss', kind='softmax', temperature=25.)
    assert tag.regions == 'best' and tag.max_proposals == 10
    assert tag.num_compositions == 0


@pytest.mark.parametrize('detector', DETECTORS)
@pytest.mark.parametrize('name', ['', '_clim'])
def test_other_losses_start_from_the_bias_of_the_head(read_config, detector,
                                                      name):
    model = read_config(f'{detector}_captions-tags{name}').model
    for objective in model.objectives.values():
        assert objective.loss.bias == -4.6
    assert 'bias' not in model.detector.bbox_head.classifier


@pytest.mark.parametrize('name', ['', '_clim', '_clim_query'])
def test_texts_of_the_dino_reach_its_queries(read_config, name):
    model = MODELS.build(read_config(f'{DINO}_captions-tags{name}').model)
    assert isinstance(model.region_reader, DenseFeatureReader)
    assert model.region_reader.source == 'query'


def test_the_dino_learns_tags_by_its_own_loss(read_config):
    model = read_config(f'{DINO}_captions-tags_clim_query').model
    tag = model.objectives.tag
    assert tag.type == 'mmdet_clim.QueryTagObjective'
    assert tag.query_loss == model.detector.bbox_head.head.loss_cls
    assert tag.loss.kind == 'softmax'


@pytest.mark.parametrize('whole, clim, boxes', [
    (f'{FCOS}_captions-tags_best_softmax', f'{FCOS}_{SOFTMAX}', 4),
    (f'{DINO}_captions-tags_query', f'{DINO}_captions-tags_clim_query', 4),
    ('baron_r18-c4_256_captions-tags_best_softmax',
     f'baron_r18-c4_256_{SOFTMAX}', 8),
])
def test_whole_images_with_the_same_options(read_config, whole, clim, boxes):
    whole, views, clim = map(read_config, (whole, f'{clim}_equal-views', clim))
    for cfg in (whole, views):
        ratio = cfg.train_dataloader.sampler.source_ratio
        assert ratio[0] == boxes
        assert sum(ratio) == cfg.train_dataloader.batch_size
        assert captioned_views(cfg) == 8
        assert cfg.model.objectives == clim.model.objectives
        assert cfg.model.detector == clim.model.detector
        assert cfg.optim_wrapper == clim.optim_wrapper
        assert cfg.train_cfg == clim.train_cfg
    assert captioned_views(clim) > 8


def test_pseudo_labels_begin_with_a_cosine_of_zero(read_config):
    # From the base detectors, no region is at 0.2 from a new name.
    for detector in (FCOS, DINO):
        objectives = read_config(f'{detector}_pseudo-labels').model.objectives
        assert list(objectives) == ['pseudo_label']
        assert objectives.pseudo_label.min_similarity == 0
