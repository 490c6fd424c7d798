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
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmdet_clim  # noqa: F401

CLIP = 'ViT-B-32-quickgelu'
BASE = 'detic_r50-caffe-c4_90k_ov-coco_base'
# Config, samples per source, losses beside the detector's own.
SECOND_STAGE = [
    ('captions', [1, 1], ['captions.caption']),
    ('captions_clim', [1, 1, 1], ['captions.caption', 'mosaic.caption']),
    ('captions-tags', [1, 1], ['captions.caption', 'captions.tag']),
    ('captions-tags_clim', [1, 1, 1],
     ['captions.caption', 'captions.tag', 'mosaic.caption', 'mosaic.tag']),
]


class RecordLosses(Hook):
    """The losses and the rate of each iteration."""

    def __init__(self):
        self.losses, self.rates = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.param_groups[0]['lr'])

    def after_train_iter(self,
                         runner,
                         batch_idx,
                         data_batch=None,
                         outputs=None):
        self.losses.append({k: v.item() for k, v in outputs.items()})


@pytest.fixture(scope='module')
def files(openmoji_root, tmp_path_factory):
    """The environment variables of the configs, set to files made here."""
    import open_clip  # after mmdet_clim, which prepares for it
    folder = tmp_path_factory.mktemp('weights')
    small = dict(
        embed_dim=512,
        quick_gelu=True,
        vision_cfg=dict(
            image_size=32, layers=1, width=32, patch_size=16, head_width=16),
        text_cfg=dict(
            context_length=77, vocab_size=49408, width=32, heads=2, layers=1))
    torch.manual_seed(0)
    resnet = ResNet(50, style='caffe', norm_eval=True)
    resnet.init_weights()
    torch.save(resnet.state_dict(), folder / 'resnet50_caffe.pth')
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip.factory._MODEL_CONFIGS, CLIP, small)
        clip = open_clip.create_model(CLIP)
        torch.save(clip.state_dict(), folder / 'clip.pt')
        patch.setenv('OV_COCO_ROOT', f'{openmoji_root}/')
        patch.setenv('CLIP_VIT_B_32', str(folder / 'clip.pt'))
        patch.setenv('RESNET50_CAFFE', str(folder / 'resnet50_caffe.pth'))
        yield folder


def shrink_images(node):
    """Images of 128 pixels, tiles of 64, in every pipeline of a config."""
    if isinstance(node, dict):
        if 'scale' in node:
            side = 64 if node['scale'] == (400, 400) else 128
            node['scale'] = (side, side)
        if node.get('type') == 'mmdet_clim.MosaicCLIM':
            node.update(tile_size=(64, 64), out_size=(128, 128))
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            shrink_images(value)


def read_config(repository, name, source_ratio=None):
    """A config with small images, small batches and two iterations."""
    cfg = Config.fromfile(repository / f'configs/detic/ov_coco/{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        shrink_images(loader.dataset)
        loader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_dataloader.batch_size = 4
    cfg.train_dataloader.batch_size = 2
    if source_ratio is not None:
        cfg.train_dataloader.batch_size = sum(source_ratio)
        cfg.train_dataloader.sampler.update(
            batch_size=sum(source_ratio), source_ratio=source_ratio)
    detector = cfg.model.get('detector', cfg.model)
    detector.train_cfg.rpn_proposal.max_per_img = 32
    detector.train_cfg.rcnn.sampler.num = 8
    detector.test_cfg.rpn.max_per_img = 4
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.visualizer.name = name
    return cfg


def train(cfg, work_dir):
    record = RecordLosses()
    cfg.work_dir = str(work_dir)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(record)
    runner.train()
    return runner, record


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
def base(files, repository, tmp_path_factory):
    """The box-supervised recipe, trained."""
    work_dir = tmp_path_factory.mktemp(BASE)
    return (*train(read_config(repository, BASE), work_dir), work_dir)


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
    # 65 classes, known by embeddings of CLIP's width alone.
    classifier = runner.model.roi_head.bbox_head.fc_cls
    assert classifier.class_embeddings.shape == (65, 512)
    assert classifier.projection.weight.shape == (512, 2048)
    assert (classifier.temperature,
            runner.model.test_cfg.rcnn.score_thr) == (25, 1e-4)
    assert classifier.logit_bias.item() == pytest.approx(-20, abs=.01)


@pytest.mark.parametrize(
    'name, source_ratio, losses',
    SECOND_STAGE,
    ids=[row[0] for row in SECOND_STAGE])
def test_a_second_stage(base, files, repository, tmp_path, name, source_ratio,
                        losses):
    cfg = read_config(repository, f'detic_r50-caffe-c4_45k_ov-coco_{name}',
                      source_ratio)
    assert cfg.load_from.endswith(f'{BASE}/iter_90000.pth')
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
