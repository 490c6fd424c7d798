# Licensed under the Apache License, Version 2.0.
"""What all configs have in common about their batches."""
import re

import pytest
from mmengine.config import Config


def test_a_batch_size_stands_once(repository):
    """Beside the data loader's none; and whatever makes runs resumable."""
    found = 0
    for path in (repository / 'configs').rglob('*.py'):
        text = path.read_text(encoding='utf-8')
        assert not re.search(r'sampler=dict\([^()]*batch_size', text), path
        assert "type='IterBasedTrainLoop'" not in text, path
        assert "type='CheckpointHook'" not in text, path
        assert 'InfiniteSampler' not in text, path
        assert 'drop_last=True' not in text, path
        found += 'MultiSourceSampler' in text
    assert found > 15


@pytest.mark.parametrize('name', [
    'detic/ov_coco/detic_r50-caffe-c4_90k_ov-coco_base',
    'detic/ov_coco/detic_r50-caffe-c4_45k_ov-coco_captions-tags_clim',
    'detic/ov_lvis/detic_r50-centernet2_45k_ov-lvis_captions_clim',
    'openmoji/centernet2_r18_lvis_clim_novel-source',
])
def test_samplers_learn_it_from_the_loader(repository, name):
    cfg = Config.fromfile(repository / 'configs' / f'{name}.py')
    loader = cfg.train_dataloader
    assert loader.sampler.type == 'mmdet_clim.MultiSourceSampler'
    assert loader.batch_sampler == dict(
        type='mmdet_clim.MultiSourceBatchSampler')
    assert set(loader.sampler) <= {'type', 'source_ratio', 'aspect_grouping'}
    assert loader.sampler.get('aspect_grouping', False) == ('ov_coco' in name)
    sources = loader.dataset.get('datasets')
    if sources is not None:
        # As published: a batch is the ratio itself.
        assert sum(loader.sampler.source_ratio) == loader.batch_size
        assert len(loader.sampler.source_ratio) == len(sources)
    assert cfg.train_cfg.type == 'mmdet_clim.ResumableTrainLoop'
    assert cfg.default_hooks.checkpoint.type == \
        'mmdet_clim.AtomicCheckpointHook'
