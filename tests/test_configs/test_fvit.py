# Licensed under the Apache License, Version 2.0.
"""The F-ViT and F-VLM recipes, two iterations each on OpenMoji's data.

Of the configs' own: data, losses, norms, heads and schedule. Smaller: images,
batches, channels, RoIs; CLIP is one of its name with a smaller tower, saved as
open_clip saves it. The constants are tested in
test_published_constants_fvit.py.
"""
import json
from pathlib import Path

import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner

import mmdet_clim  # noqa: F401
from mmdet_clim.datasets.openmoji import DatasetParameters, build_dataset

PROMPT = 'a photo of {article} {}.'
TEXT = dict(context_length=77, vocab_size=49408, width=16, heads=2, layers=1)
CLIPS = {
    'ViT-B-16-quickgelu':
    dict(image_size=32, layers=12, width=32, patch_size=16, head_width=16),
    'ViT-L-14-336-quickgelu':
    dict(image_size=28, layers=24, width=32, patch_size=14, head_width=16),
    'RN50x64-quickgelu':
    dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=32),
}
# Variables that name a checkpoint of CLIP, original and refined.
VARIABLES = {
    'ViT-B-16-quickgelu': ['CLIP_VIT_B_16', 'CLIM_VIT_B_16'],
    'ViT-L-14-336-quickgelu': ['CLIP_VIT_L_14_336', 'CLIM_VIT_L_14_336'],
    'RN50x64-quickgelu': ['CLIP_RN50X64', 'CLIM_RN50X64'],
}
# Config, (alpha, beta, tau, weight of the background), image side.
COCO = (.1, .8, 75, .6)
LVIS = (.35, .65, 50, .9)
RECIPES = [
    ('ov_coco/fvit_vit-b-16_3e_ov-coco', COCO, 96),
    ('ov_coco/fvit_vit-b-16_3e_ov-coco_clim', COCO, 96),
    ('ov_coco/fvit_vit-l-14-336_3e_ov-coco', COCO, 112),
    ('ov_coco/fvit_vit-l-14-336_3e_ov-coco_clim', COCO, 112),
    ('ov_lvis/fvit_vit-b-16_48e_ov-lvis', LVIS, 96),
    ('ov_lvis/fvit_vit-b-16_48e_ov-lvis_clim', LVIS, 96),
    ('ov_lvis/fvit_vit-l-14-336_48e_ov-lvis', LVIS, 112),
    ('ov_lvis/fvit_vit-l-14-336_48e_ov-lvis_clim', LVIS, 112),
    ('ov_lvis/fvlm_rn50x64_2880_ov-lvis', LVIS, 96),
    ('ov_lvis/fvlm_rn50x64_2880_ov-lvis_clim', LVIS, 96),
]
RATES = {'3e': 1e-4, '48e': 4e-4, '2880': .36}


class RecordLosses(Hook):
    """The losses of each iteration, and the highest rate of the schedule."""

    def __init__(self):
        self.losses = []

    def before_train(self, runner):
        group = runner.optim_wrapper.param_groups[0]
        self.highest_rate = group['initial_lr']

    def after_train_iter(self, runner, *args, outputs=None, **kwargs):
        self.losses.append({k: v.item() for k, v in outputs.items()})


@pytest.fixture(scope='module')
def roots(openmoji_root, small_clips, tmp_path_factory):
    """LVIS-like scenes, and the environment variables of the configs."""
    import open_clip  # after mmdet_clim, which prepares for it
    folder = tmp_path_factory.mktemp('fvit')
    lvis = folder / 'lvis'
    build_dataset(
        lvis,
        DatasetParameters(
            train=24, val=4, captioned=4, seed=0, size=96, vocabulary='lvis'),
        workers=1)
    small = {
        name:
        dict(embed_dim=24, quick_gelu=True, vision_cfg=vision, text_cfg=TEXT)
        for name, vision in CLIPS.items()
    }
    with pytest.MonkeyPatch.context() as patch, small_clips(
            folder / 'models', small):
        for name in CLIPS:
            for seed, variable in enumerate(VARIABLES[name]):
                torch.manual_seed(seed)
                file = folder / f'{variable}.pt'
                torch.save(open_clip.create_model(name).state_dict(), file)
                patch.setenv(variable, str(file))
        patch.setenv('OV_COCO_ROOT', f'{openmoji_root}/')
        patch.setenv('OV_LVIS_ROOT', f'{lvis}/')
        patch.setenv('OBJECTS365_ROOT', f'{openmoji_root}/')
        yield folder


def shrink_images(node, side):
    """Images of one size in every pipeline of a config."""
    if isinstance(node, dict):
        for key in ('scale', 'crop_size', 'size'):
            if key in node:
                node[key] = (side, side)
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            shrink_images(value, side)


def small_config(repository, name, side):
    cfg = Config.fromfile(repository / f'configs/fvit/{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        if loader is not None:
            shrink_images(loader.dataset, side)
            loader.update(
                num_workers=0, persistent_workers=False, batch_size=2)
    shrink_detector(cfg.model)
    cfg.visualizer.name = name
    return cfg


def shrink_detector(model):
    """16 channels everywhere, few RoIs, and one of ViLD's prompts."""
    model.roi_head.bbox_head.classifier.templates = (PROMPT, )
    vit = 'norm_cfg' in model.backbone
    model.neck.in_channels = [32] * 4 if vit else [32, 64, 128, 256]
    model.neck.out_channels = 16
    model.rpn_head.update(in_channels=16, feat_channels=16)
    roi_head = model.roi_head
    roi_head.bbox_roi_extractor.out_channels = 16
    roi_head.bbox_head.update(
        in_channels=16, conv_out_channels=16, fc_out_channels=32)
    if roi_head.get('mask_head') is not None:
        roi_head.mask_roi_extractor.out_channels = 16
        roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    model.train_cfg.rpn_proposal.max_per_img = 32
    model.train_cfg.rcnn.sampler.num = 16
    model.test_cfg.rpn.max_per_img = 8
    model.test_cfg.rcnn.score_thr = 0.


def stop_after_two(cfg):
    """Two iterations, whether the schedule counts epochs or iterations."""
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', by_epoch=False, interval=2)
    cfg.log_processor.by_epoch = False
    cfg.train_cfg = dict(
        type='mmdet_clim.ResumableTrainLoop', max_iters=2, val_interval=2)
    return cfg


def numbers(runner, prefix):
    return {
        key: buffer.current()
        for key, buffer in runner.message_hub.log_scalars.items()
        if key.startswith(prefix)
    }


@pytest.mark.parametrize(
    'name, constants, side', RECIPES, ids=[row[0] for row in RECIPES])
def test_two_iterations(roots, repository, tmp_path, name, constants, side):
    cfg = small_config(repository, name, side)
    schedule = next(key for key in RATES if f'_{key}_' in name)
    if schedule == '2880':
        assert cfg.train_cfg.max_iters == 2880
    else:
        assert f'{cfg.train_cfg.max_epochs}e' == schedule
    stop_after_two(cfg)
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    record = RecordLosses()
    runner.register_hook(record)
    runner.train()

    names = {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'}
    masks = 'lvis' in name
    names |= {'loss_mask'} if masks else set()
    assert len(record.losses) == 2
    for losses in record.losses:
        parts = {k: v for k, v in losses.items() if 'loss' in k}
        total = parts.pop('loss')
        assert set(parts) == names
        assert all(0 <= v < 100 for v in parts.values()), parts
        assert total == pytest.approx(sum(parts.values()), rel=1e-4)
    assert record.highest_rate == RATES[schedule]
    metric = 'val/ov_lvis/' if masks else 'val/ov_coco/'
    measured = numbers(runner, metric)
    # Some of LVIS's groups have no object in so few images.
    assert [value for value in measured.values() if value == value]
    assert not [value for value in measured.values() if value > 20]
    check_constants(runner.model, constants)
    check_tower(runner.model, cfg, roots, tmp_path / 'iter_2.pth')


def check_constants(model, constants):
    """Those of REFERENCE.md, section 5."""
    head = model.roi_head
    assert (head.alpha, head.beta, head.clip_temperature,
            head.bbox_head.loss_cls.background_weight) == constants
    temperature = head.bbox_head.fc_cls.log_temperature.exp()
    assert temperature.item() == pytest.approx(50, rel=1e-2)
    assert len(model.rpn_head.rpn_conv) == 2
    assert len(head.bbox_head.shared_convs) == 4
    assert len(head.bbox_head.shared_fcs) == 2
    assert len(head.bbox_head.cls_fcs) == len(head.bbox_head.reg_fcs) == 1
    assert head.bbox_head.reg_class_agnostic
    if head.with_mask:
        assert head.mask_head.class_agnostic


def check_tower(model, cfg, folder, checkpoint):
    """The tower is the named file's, untouched, and not in the checkpoint."""
    variable = cfg.model.backbone.pretrained
    assert variable.startswith(str(folder))
    clim = 'CLIM_' in variable
    assert clim == cfg.filename.endswith('_clim.py')
    given = torch.load(variable)
    tower = model.backbone.tower.visual
    assert not tower.training
    for key, value in tower.state_dict().items():
        assert torch.equal(value, given[f'visual.{key}']), key
    state = torch.load(checkpoint)['state_dict']
    assert 'backbone.tower_sum' in state
    assert not [key for key in state if 'visual' in key]
    optimised = torch.load(checkpoint)['optimizer']['param_groups']
    count = sum(len(group['params']) for group in optimised)
    assert count == len(list(model.parameters()))


def with_all_classes(dataset, folder):
    """OpenMoji's annotations among all the classes of a data set."""
    content = json.loads(
        Path(dataset.data_root,
             'annotations/instances_val2017.json').read_text())
    names = {c['id']: c['name'] for c in content['categories']}
    classes = DATASETS.get(dataset.type).METAINFO['classes']
    content['categories'] = [
        dict(id=number, name=name) for number, name in enumerate(classes, 1)
    ]
    content['annotations'] = [
        dict(a, category_id=1 + classes.index(names[a['category_id']]))
        for a in content['annotations'] if names[a['category_id']] in classes
    ]
    file = folder / 'all_classes.json'
    file.write_text(json.dumps(content))
    return str(file)


@pytest.mark.parametrize('target', ['coco', 'objects365'])
def test_transfer_without_training(roots, repository, tmp_path, target):
    """A checkpoint of OV-LVIS on other classes, evaluated."""
    source = small_config(repository, 'ov_lvis/fvit_vit-b-16_48e_ov-lvis_clim',
                          96)
    register_all_modules()
    # Batch norms that have seen nothing let some random weights overflow.
    torch.manual_seed(0)
    trained = MODELS.build(source.model)
    trained.init_weights()
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'lvis.pth')
    cfg = small_config(repository,
                       f'transfer/fvit_vit-b-16_ov-lvis_to_{target}', 96)
    file = with_all_classes(cfg.test_dataloader.dataset, tmp_path)
    cfg.test_dataloader.dataset.update(
        ann_file=file, data_prefix=dict(img='val2017/'))
    cfg.test_evaluator.ann_file = file
    cfg.load_from = str(tmp_path / 'lvis.pth')
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    measured = runner.test()
    assert -1 <= measured['coco/bbox_mAP'] < .2
    head = runner.model.roi_head
    assert len(head.is_base) == dict(coco=80, objects365=365)[target]
    assert head.bbox_head.num_classes == len(head.is_base)
    # Base classes by their names in the LVIS-like vocabulary.
    base = set(trained.roi_head.bbox_head.vocabulary.base_names)
    found = {
        name
        for name, is_base in zip(head.bbox_head.vocabulary.names, head.is_base)
        if is_base
    }
    assert found == base & set(head.bbox_head.vocabulary.names)
    assert not head.with_mask
    assert torch.equal(head.bbox_head.fc_cls.projection.weight,
                       trained.roi_head.bbox_head.fc_cls.projection.weight)


def test_the_small_ones_of_openmoji(roots, openmoji_root, repository, tmp_path,
                                    monkeypatch):
    """On one CLIP, and from there on another, both of random weights."""
    monkeypatch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
    base = train_small(repository, tmp_path / 'base', monkeypatch)
    monkeypatch.setenv('OPENMOJI_FVIT', str(tmp_path / 'base' / 'iter_2.pth'))
    runner = train_small(repository, tmp_path, monkeypatch)
    assert runner.cfg.load_from == str(tmp_path / 'base' / 'iter_2.pth')
    own, others = (dict(r.model.named_parameters()) for r in (runner, base))
    assert own.keys() == others.keys()
    # Two iterations of a warm-up move a weight very little.
    for key, value in own.items():
        torch.testing.assert_close(value, others[key], atol=1e-3, rtol=0)


def train_small(repository, work_dir, monkeypatch):
    """Two iterations on a new CLIP of the configuration that is shipped."""
    import open_clip

    from mmdet_clim.models.open_clip_models import model_name
    name = 'fvit_clip-small_256'
    if work_dir.name == 'base':
        name += '_base'
    work_dir.mkdir(exist_ok=True)
    model = repository / 'configs/openmoji/open_clip_small.json'
    weights = work_dir / 'open_clip.pt'
    torch.save(
        open_clip.create_model(model_name(str(model))).state_dict(), weights)
    monkeypatch.setenv('OPENMOJI_CLIP', str(weights))
    cfg = Config.fromfile(repository / f'configs/openmoji/{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.visualizer.name = name
    cfg.work_dir = str(work_dir)
    runner = Runner.from_cfg(cfg)
    record = RecordLosses()
    runner.register_hook(record)
    runner.train()
    assert len(record.losses) == 2
    assert all(0 < losses['loss'] < 100 for losses in record.losses)
    measured = numbers(runner, 'val/ov_coco/')
    assert all(0 <= value < 20 for value in measured.values())
    given = torch.load(weights)
    tower = runner.model.backbone.tower.visual
    for key, value in tower.state_dict().items():
        assert torch.equal(value, given[f'visual.{key}']), key
    return runner
