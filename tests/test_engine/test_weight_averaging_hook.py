# Licensed under the Apache License, Version 2.0.
"""A real run of a real, small CLIP."""
import copy
import json

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

import mmdet_clim  # noqa: F401
from mmdet_clim.engine.hooks import WeightAveragingHook

TINY = dict(
    embed_dim=12,
    vision_cfg=dict(
        image_size=32, layers=2, width=32, patch_size=16, head_width=16),
    text_cfg=dict(
        context_length=10, vocab_size=49408, width=16, heads=2, layers=1))
CHANGED = 'transformer.resblocks.1.mlp.c_fc.weight'


class CaptionedNoise(Dataset):

    def __len__(self):
        return 8

    def __getitem__(self, index):
        sample = DetDataSample(
            metainfo=dict(
                img_id=index,
                img_shape=(32, 32),
                captions=[[f'a cat {index}']],
                image_keys=[index],
                branch='captions'))
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 32, 32), generator=generator)
        return dict(inputs=image.to(torch.uint8), data_samples=sample)


class Nothing(BaseMetric):
    default_prefix = 'nothing'

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(count=len(results))


class RecordWeights(Hook):
    """One weight before, during and after each validation."""

    def __init__(self):
        self.seen = []

    def _record(self, runner):
        state = runner.model.image_tower.visual.state_dict()
        self.seen.append(state[CHANGED].clone())

    def after_train_iter(self, runner, *args, **kwargs):
        self._record(runner)

    def before_val_iter(self, runner, *args, **kwargs):
        self._record(runner)

    def after_train(self, runner):
        self._record(runner)


@pytest.fixture
def clip(tmp_path):
    import open_clip
    config = tmp_path / 'averaging-tiny.json'
    config.write_text(json.dumps(TINY))
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    model = open_clip.create_model(config.stem)
    torch.save(model.state_dict(), tmp_path / 'clip.pt')
    return dict(model=str(config), pretrained=str(tmp_path / 'clip.pt'))


def run(tmp_path, model, **hook):
    register_all_modules()
    loader = dict(
        batch_size=8,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
        dataset=CaptionedNoise())
    record = RecordWeights()
    runner = Runner(
        model,
        work_dir=str(tmp_path / 'work'),
        train_dataloader=loader,
        val_dataloader=copy.deepcopy(loader),
        train_cfg=dict(by_epoch=False, max_iters=2, val_interval=2),
        val_cfg=dict(),
        val_evaluator=dict(type=Nothing),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
        custom_hooks=[
            dict(type='mmdet_clim.WeightAveragingHook', **hook), record
        ],
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook',
                by_epoch=False,
                interval=2,
                save_best='nothing/count',
                rule='greater')),
        default_scope='mmdet',
        experiment_name=tmp_path.name)
    runner.train()
    return runner, record.seen


def clip_model(clip):
    return dict(
        type='mmdet_clim.CLIMOnCLIP',
        image_tower=dict(type='mmdet_clim.DenseImageTower', **clip),
        text_encoder=dict(type='mmdet_clim.OpenCLIPTextEncoder', **clip),
        unlocked_blocks=1,
        image_size=(32, 32),
        objectives=dict(
            clim=dict(type='mmdet_clim.MosaicTextObjective', grids=((2,
                                                                     2), ))))


def test_the_average_is_saved_for_open_clip_and_validated(clip, tmp_path):
    import open_clip
    runner, (_, trained, validated, after) = run(
        tmp_path, clip_model(clip), alpha=.7, interval=2)
    original = torch.load(clip['pretrained'])
    expected = .7 * trained + .3 * original[f'visual.{CHANGED}']
    assert (trained - original[f'visual.{CHANGED}']).abs().max() > 1e-3
    torch.testing.assert_close(validated, expected)
    assert torch.equal(after, trained)
    # MMEngine's checkpoint has the trained weights.
    own = torch.load(tmp_path / 'work/iter_2.pth', weights_only=False)
    assert torch.equal(own['state_dict'][f'image_tower.visual.{CHANGED}'],
                       trained)
    # save_best, too, and it has written the other once more.
    best, = (tmp_path / 'work').glob('best_*.pth')
    own = torch.load(best, weights_only=False)
    assert torch.equal(own['state_dict'][f'image_tower.visual.{CHANGED}'],
                       trained)

    saved = open_clip.create_model(
        'averaging-tiny', pretrained=str(tmp_path / 'work/open_clip.pt'))
    state = saved.state_dict()
    torch.testing.assert_close(state[f'visual.{CHANGED}'], expected)
    scale = runner.model.objectives['clim'].region_loss.log_temperature
    assert state['logit_scale'] == scale
    assert scale != original['logit_scale']
    for name, value in original.items():
        if not name.startswith('visual.transformer.resblocks.1.') \
                and name != 'logit_scale':
            torch.testing.assert_close(state[name], value)


def test_half_precision_is_half_the_size(clip, tmp_path):
    import open_clip
    run(tmp_path, clip_model(clip), alpha=1., half=True, filename='half.pt')
    file = tmp_path / 'work/half.pt'
    assert file.stat().st_size < .6 * (tmp_path / 'clip.pt').stat().st_size
    open_clip.create_model('averaging-tiny', pretrained=str(file))


def test_wrong_arguments_and_models(tmp_path):
    with pytest.raises(ValueError, match='alpha'):
        WeightAveragingHook(alpha=1.1)
    with pytest.raises(ValueError, match='interval'):
        WeightAveragingHook(interval=0)

    class OtherRunner:
        model = torch.nn.Linear(1, 1)

    with pytest.raises(TypeError, match='CLIMOnCLIP, got Linear'):
        WeightAveragingHook().before_train(OtherRunner())
