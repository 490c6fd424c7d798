# Licensed under the Apache License, Version 2.0.
"""The small FCOS on OpenMoji-COCO, and the tag loss that it shares."""
import pytest
from mmengine.config import Config

BASE = 'fcos_r18_256_base'
CLIM = 'fcos_r18_256_captions-tags_clim_best_softmax'


@pytest.fixture
def read_config(openmoji_root, repository, monkeypatch):
    """Read a config by its name, with data made here."""
    monkeypatch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
    return lambda name: Config.fromfile(repository /
                                        f'configs/openmoji/{name}.py')


def test_both_stages_train(read_config, shorten, train, tmp_path):
    cfg = read_config(BASE)
    shorten(cfg, 2)
    base, record = train(cfg, tmp_path / BASE)
    own = {'loss', 'loss_cls', 'loss_bbox', 'loss_centerness'}
    assert [set(losses) - {'grad_norm'}
            for losses in record.losses] == [own] * 2

    cfg = read_config(CLIM)
    assert cfg.load_from == f'work_dirs/{BASE}/iter_1500.pth'
    shorten(cfg, 2, [1, 1, 1])
    cfg.load_from = str(tmp_path / BASE / 'iter_2.pth')
    runner, record = train(cfg, tmp_path / CLIM)
    for losses in record.losses:
        assert {name
                for name in losses if 'loss' in name} == own | {
                    f'{branch}.{objective}.loss'
                    for branch in ('captions', 'mosaic')
                    for objective in ('caption', 'tag')
                }
        assert 0 < losses['loss'] < 1000
    # Texts train the layer that classifies, not the frozen backbone.
    before, after = (
        m.state_dict() for m in (base.model, runner.model.detector))
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert 'bbox_head.conv_cls.projection.weight' in moved
    assert not any(name.startswith('backbone') for name in moved)


@pytest.mark.parametrize(
    'name',
    [CLIM, 'demo_clim_best_softmax', 'demo_captions-tags_best_softmax'])
def test_the_tags_are_told_apart_by_a_softmax(read_config, name):
    tag = read_config(name).model.objectives.tag
    assert tag.loss == dict(
        type='mmdet_clim.CLIMRegionLoss', kind='softmax', temperature=25.)
    assert tag.regions == 'best' and tag.max_proposals == 10
    assert tag.num_compositions == 0


@pytest.mark.parametrize('name', ['', '_clim'])
def test_other_losses_start_from_the_bias_of_the_head(read_config, name):
    model = read_config(f'fcos_r18_256_captions-tags{name}').model
    for objective in model.objectives.values():
        assert objective.loss.bias == -4.6
    assert 'bias' not in model.detector.bbox_head.classifier
