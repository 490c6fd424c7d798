# Licensed under the Apache License, Version 2.0.
"""Every published checkpoint, by its names and shapes, in its config.

``published_keys.json.xz`` has what ``../shared/checkpoint_keys`` says: of each
checkpoint, name to shape and type. Weights are made of the names.
"""
import json
import lzma
import math
import zlib
from pathlib import Path

import open_clip
import pytest
import torch
from mmdet.models.task_modules import AnchorGenerator
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch.nn import functional

from mmdet_clim.engine.published_checkpoints import (
    build_without_clip,
    convert_clip,
    convert_state_dict,
    objective_parts,
)
from mmdet_clim.engine.published_checkpoints.building import empty_clip

HERE = Path(__file__).parent
LISTS = HERE.parents[3] / 'shared' / 'checkpoint_keys'
KEYS = json.loads(
    lzma.decompress((HERE / 'published_keys.json.xz').read_bytes()))
SYNC = dict(type='SyncBN', requires_grad=True)
HEAD = 'roi_head.bbox_head'
# Widths of ViT-B/16, and narrower ones of the same depth.
NARROW = {768: 48, 2304: 144, 3072: 192}


def weights_of(name, narrow=None, like=None):
    """A checkpoint: random numbers by name, one number in large weights.

    Args:
        name (str): Key of ``KEYS``.
        narrow (dict, optional): Widths to replace.
        like (dict, optional): Weights whose shapes count where they are named.
    """
    weights = {}
    for key, (shape, dtype) in KEYS[name].items():
        shape = [(narrow or {}).get(size, size) for size in shape]
        if like and key in like:
            shape = like[key].shape
        seeded = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        if dtype == 'int64':
            weights[key] = torch.tensor(7)
        elif key == 'roi_head.bbox_head.bg_embedding':
            weights[key] = torch.zeros(shape)
        elif math.prod(shape) > 2e5:
            weights[key] = torch.rand((), generator=seeded).expand(shape)
        else:
            weights[key] = torch.rand(shape, generator=seeded) + .5
    return weights


@pytest.fixture(scope='module')
def read(repository):
    """``read(config, **head)``: the model of a config, its heads changed."""
    register_all_modules()

    def read_one(config, **head):
        model = Config.fromfile(repository / 'configs' / config).model
        heads = model.get('detector', model).roi_head.bbox_head
        for part in heads if isinstance(heads, list) else [heads]:
            if 'lvis' in config:
                part.vocabulary = [f'class {number}' for number in range(1203)]
            for key, value in head.items():
                part[key] = value
        return model

    return read_one


def narrow_json(folder, name, vision, text=None):
    """The file of a CLIP of the published depth and fewer channels."""
    config = open_clip.get_model_config(name)
    config['vision_cfg'].update(vision)
    config['text_cfg'].update(text or dict(width=64, heads=1, layers=1))
    file = folder / f'{folder.name}-{name}.json'
    file.write_text(json.dumps(config))
    return str(file)


def check(weights, done, model, unused=0):
    """Every entry of the file and of the model is accounted for."""
    listed = [name for names in done.unused.values() for name in names]
    assert len(listed) == unused
    of_file = len(done.converted) + len(done.objectives) + len(listed) + len(
        done.checked) + len(done.ignored)
    own = model.state_dict()
    assert list(done.state_dict) == [n for n in own if n not in done.missing]
    for name, value in done.state_dict.items():
        assert value.shape == own[name].shape, name
        assert value.dtype == own[name].dtype, name
    return of_file


def test_the_lists_are_those_of_the_shared_folder():
    if not LISTS.is_dir():
        pytest.skip('../shared/checkpoint_keys is absent')
    theirs = [
        line.split('\t')[:2] for file in sorted(LISTS.glob('*.txt'))
        for line in file.read_text().splitlines() if line.count('\t') == 2
    ]
    ours = [[name, str(tuple(shape))] for shapes in KEYS.values()
            for name, (shape, _) in shapes.items()]
    assert ours == theirs


@pytest.fixture(scope='module')
def c4(read):
    """CLIM's config on Detic's C4, and the detector in it."""
    model = read('detic/ov_coco/'
                 'detic_r50-caffe-c4_45k_ov-coco_captions-tags_clim.py')
    return model, build_without_clip(model.detector)


@pytest.mark.parametrize('name, unused, biases', [
    ('detic_c4_ov-coco: base', 1, {}),
    ('detic_c4_ov-coco: CLIM captions', 150, ['caption']),
    ('detic_c4_ov-coco: CLIM captions + tags', 151, ['caption', 'tags']),
])
def test_detic_c4(c4, name, unused, biases):
    cfg, detector = c4
    weights = weights_of(name)
    done = convert_state_dict(weights, detector, objective_parts(cfg))
    assert done.family.name == 'detic_c4'
    assert check(weights, done, detector, unused) == len(weights)
    assert len(done.converted) == 331 and not done.kept
    assert done.checked == ['roi_head.bbox_head.bg_embedding']
    assert [value.item() for value in done.objectives.values()] == [
        weights[f'roi_head.detic_{kind}.bce_bias'].item() for kind in biases
    ]
    head = 'roi_head.bbox_head'
    assert done.state_dict[f'{head}.fc_cls.logit_bias'] == weights[
        f'{head}.cls_bias'][0]
    # The published generator, and where ours has its anchors.
    theirs = AnchorGenerator(
        strides=[16],
        ratios=[.5, 1., 2.],
        scales=[2, 4, 8, 16, 32],
        scale_major=False).base_anchors[0]
    ours = detector.rpn_head.prior_generator.base_anchors[0]
    moved = 0
    for row, anchor in enumerate(theirs):
        place = (ours - anchor).abs().sum(1).argmin().item()
        assert torch.equal(ours[place], anchor)
        moved += place != row
        for part, size in (('rpn_cls', 1), ('rpn_reg', 4)):
            for kind in ('weight', 'bias'):
                key = f'rpn_head.{part}.{kind}'
                assert torch.equal(
                    done.state_dict[key][place * size:(place + 1) * size],
                    weights[key][row * size:(row + 1) * size])
    assert moved == 12


def test_biases_of_objectives_have_the_names_of_the_wrapper(c4):
    cfg, _ = c4
    names = objective_parts(cfg)
    own = build_without_clip(cfg).state_dict()
    assert sorted(names) == ['caption', 'tag']
    assert all(own[f'{part.prefix}bias'] == -20 for part in names.values())
    assert objective_parts(cfg.detector) == {}


def test_a_background_that_is_one_is_refused(c4):
    weights = weights_of('detic_c4_ov-coco: base')
    weights['roi_head.bbox_head.bg_embedding'] += .1
    with pytest.raises(ValueError, match='(?s)constant: .*bg_embedding'):
        convert_state_dict(weights, c4[1])


@pytest.mark.parametrize('name, unused', [
    ('detic_centernet2_ov-lvis: boxsup', 6),
    ('detic_centernet2_ov-lvis: CLIM', 6 + 149 + 1),
])
def test_detic_centernet2(centernet2, name, unused):
    weights = weights_of(name)
    done = convert_state_dict(weights, centernet2)
    assert done.family.name == 'mmdet'
    assert check(weights, done, centernet2, unused) == len(weights)
    assert len(done.converted) == 401
    key = 'roi_head.bbox_head.2.fc_cls.'
    assert torch.equal(done.state_dict[f'{key}projection.bias'],
                       weights[f'{key}linear.bias'])


@pytest.fixture(scope='module')
def centernet2(read):
    return build_without_clip(
        read('detic/ov_lvis/detic_r50-centernet2_90k_ov-lvis_base.py'))


BARON_C4 = 'baron/ov_coco/baron_r50-caffe-c4_90k_ov-coco_{}.py'
BARON_FPN = 'baron/ov_coco/baron_r50-fpn-syncbn_90k_ov-coco_{}.py'
BARON_LVIS = ('baron/ov_lvis/'
              'baron_mask-rcnn_r50-fpn-syncbn_45k_ov-lvis_distillation.py')


@pytest.mark.parametrize('name, config, objective', [
    ('baron_c4_ov-coco: captions', BARON_C4.format('captions'), 'bag'),
    ('baron_c4_ov-coco: KD', BARON_C4.format('distillation'), 'distillation'),
    ('baron_fpn: OV-COCO KD', BARON_FPN.format('distillation'),
     'distillation'),
    ('baron_fpn: OV-LVIS KD', BARON_LVIS, 'distillation'),
    ('baron_fpn: OV-LVIS KD ensemble', BARON_LVIS, 'distillation'),
])
def test_baron(read, name, config, objective):
    """In the configs as they are: all that a model uses has its place."""
    cfg = read(config)
    detector = build_without_clip(cfg.detector)
    weights = weights_of(name)
    done = convert_state_dict(weights, detector, objective_parts(cfg))
    assert done.family.name == 'baron'
    # What is not used: CLIP, the class vectors, and an ensemble's other head.
    unused = [name for names in done.unused.values() for name in names]
    assert all(
        name.startswith(('roi_head.clip.', 'roi_head.bbox_head.kd.')) or name
        in ('roi_head.bbox_head.cls_embeddings', 'roi_head.bbox_head.is_base')
        for name in unused)
    joined = f'{HEAD}.bg_embedding.weight' in weights
    # Of the background two entries become one.
    assert check(weights, done, detector, len(unused)) == len(weights) - joined
    assert not done.missing and not done.kept and not done.folded
    ours = done.state_dict
    assert torch.equal(ours[f'{HEAD}.fc_cls.projection.bias'],
                       weights[f'{HEAD}.fc_cls.bias'])
    if joined:
        assert torch.equal(
            ours[f'{HEAD}.fc_cls.background'],
            weights[f'{HEAD}.bg_embedding.weight'][:, 0] +
            weights[f'{HEAD}.bg_embedding.bias'])
    else:
        assert ours[f'{HEAD}.fc_cls.logit_bias'] == weights[f'{HEAD}.cls_bias']
        assert done.checked == [f'{HEAD}.bg_embedding']
    if 'rpn_head.rpn_cls.0.weight' in weights:
        for part in ('0.weight', '0.bias', '2.weight', '2.bias'):
            assert torch.equal(ours[f'rpn_head.rpn_cls.{part}'],
                               weights[f'rpn_head.rpn_cls.{part}'])
    # The position in a bag, layer by layer.
    theirs = 'roi_head.baron_' + dict(
        bag='caption', distillation='kd')[objective]
    assert len(done.objectives) == 6
    for layer in range(3):
        for part in ('weight', 'bias'):
            assert torch.equal(
                done.objectives[f'objectives.{objective}.reader.position.'
                                f'layers.{layer}.{part}'],
                weights[f'{theirs}.positional_embed.pos_proj.{layer}.{part}'])


def test_baron_without_objectives(read):
    """A detector alone has no bags, and does without their positions."""
    cfg = read(BARON_FPN.format('base'))
    weights = weights_of('baron_fpn: OV-COCO KD')
    done = convert_state_dict(weights, build_without_clip(cfg))
    reason, = [why for why in done.unused if 'position' in why]
    assert len(done.unused[reason]) == 6 and not done.objectives
    # A config without the tower and the background is refused.
    with pytest.raises(ValueError) as error:
        convert_state_dict(
            weights,
            build_without_clip(read(BARON_C4.format('captions')).detector))
    for text in ('unknown: rpn_head.rpn_cls.0.weight',
                 'unknown: roi_head.bbox_head.bg_embedding.weight',
                 'missing: roi_head.bbox_head.fc_cls.logit_bias'):
        assert text in str(error.value)


def fvit(read, folder, config):
    """F-ViT as its config has it, but for few channels."""
    model = read(config)
    vision = dict(width=48, head_width=12)
    model.backbone.model = narrow_json(folder, 'ViT-B-16', vision)
    model.neck.in_channels = [48] * 4
    return build_without_clip(model)


@pytest.mark.parametrize('name, config, count', [
    ('fvit_vit-b-16: OV-COCO', 'fvit/ov_coco/fvit_vit-b-16_3e_ov-coco.py',
     106),
    ('fvit_vit-b-16: OV-LVIS', 'fvit/ov_lvis/fvit_vit-b-16_48e_ov-lvis.py',
     459),
])
def test_fvit(read, tmp_path, name, config, count):
    detector = fvit(read, tmp_path, config)
    weights = weights_of(name, NARROW)
    done = convert_state_dict(weights, detector)
    assert done.family.name == 'fvit'
    # 152 of the tower and the class vectors; two entries become one, and the
    # sum of the tower is none.
    assert check(weights, done, detector, 153) == len(weights)
    assert len(done.converted) == count
    classifier = detector.roi_head.bbox_head.fc_cls
    detector.load_state_dict(done.state_dict)
    head = 'roi_head.bbox_head'
    torch.testing.assert_close(classifier.log_temperature.exp(),
                               weights[f'{head}.cls_temp'])
    background = functional.linear(
        torch.ones(1), weights[f'{head}.bg_embedding.weight'],
        weights[f'{head}.bg_embedding.bias'])
    torch.testing.assert_close(classifier.all_embeddings()[-1],
                               background / background.norm())
    total = sum(value.double().abs().sum().item()
                for key, value in weights.items()
                if key.startswith('backbone.visual.'))
    assert done.state_dict['backbone.tower_sum'].item() == pytest.approx(
        1000 * total, rel=1e-6)
    assert torch.equal(done.state_dict['backbone.levels.0.1.running_var'],
                       weights['backbone.interpolate1.1.running_var'])


def test_group_norms_are_named(read, tmp_path):
    model = read('fvit/ov_coco/fvit_vit-b-16_3e_ov-coco.py')
    norm = dict(type='GN', num_groups=8)
    model.backbone.update(
        norm_cfg=norm,
        model=narrow_json(tmp_path, 'ViT-B-16', dict(width=48, head_width=12)))
    model.neck.update(norm_cfg=norm, in_channels=[48] * 4)
    with pytest.raises(ValueError, match='has group norms'):
        convert_state_dict(
            weights_of('fvit_vit-b-16: OV-COCO', NARROW),
            build_without_clip(model))


def test_another_tower_is_refused(read, tmp_path):
    detector = fvit(read, tmp_path, 'fvit/ov_coco/fvit_vit-b-16_3e_ov-coco.py')
    weights = weights_of('fvit_vit-b-16: OV-COCO', NARROW)
    del weights['backbone.visual.ln_pre.bias']
    weights['backbone.visual.proj'] = torch.ones(3, 512)
    with pytest.raises(ValueError) as error:
        convert_state_dict(weights, detector)
    assert str(error.value).splitlines()[1:] == [
        '  image tower: backbone.visual.ln_pre.bias is missing',
        '  shape: backbone.visual.proj (3, 512), expected (48, 512) of the '
        "config's image tower",
    ]


def test_half_a_background_is_refused(read, tmp_path):
    detector = fvit(read, tmp_path, 'fvit/ov_coco/fvit_vit-b-16_3e_ov-coco.py')
    weights = weights_of('fvit_vit-b-16: OV-COCO', NARROW)
    del weights['roi_head.bbox_head.bg_embedding.bias']
    with pytest.raises(ValueError, match="bg_embedding.weight'] alone"):
        convert_state_dict(weights, detector)


def test_fvlm(read, tmp_path):
    """Its FPN and the batch norms of its RPN, as the config has them."""
    weights, detector, tower = fvlm(read, tmp_path)
    done = convert_state_dict(weights, detector)
    assert not done.folded
    assert check(weights, done, detector, len(tower) + 1) == len(weights)
    for key in ('rpn_head.rpn_conv.1.bn.running_var',
                'neck.lateral_convs.3.bn.weight'):
        assert torch.equal(done.state_dict[key], weights[key])


def fvlm(read, folder, **rpn_head):
    """Published weights, our detector for them, and its tower's weights."""
    model = read('fvit/ov_lvis/fvlm_rn50x64_2880_ov-lvis.py')
    model.backbone.model = narrow_json(folder, 'RN50x64', dict(width=8))
    if rpn_head:
        del model.rpn_head['norm_cfg']
        model.rpn_head.update(rpn_head)
    detector = build_without_clip(model)
    tower = {
        f'backbone.visual.{key}': value
        for key, value in detector.backbone.tower.visual.state_dict().items()
    }
    weights = weights_of('fvlm_rn50x64', like=tower)
    assert sum(key in tower for key in weights) == len(tower)
    return weights, detector, tower


def test_batch_norms_that_the_config_has_not_are_folded(read, tmp_path):
    weights, detector, tower = fvlm(read, tmp_path, type='mmdet.RPNHead')
    done = convert_state_dict(weights, detector)
    assert len(done.folded) == 10
    assert check(weights, done, detector,
                 len(tower) + 1) == len(weights) - 10 + 2
    x = torch.rand(2, 256, 4, 4, generator=torch.Generator().manual_seed(0))
    for layer in ('rpn_head.rpn_conv.0', 'rpn_head.rpn_conv.1'):
        mean, var, gamma, beta = (
            weights[f'{layer}.bn.{part}'][:, None, None]
            for part in ('running_mean', 'running_var', 'weight', 'bias'))
        kernel = weights[f'{layer}.conv.weight'] / 256
        expected = (functional.conv2d(x, kernel) * 256 -
                    mean) / torch.sqrt(var + 1e-5) * gamma + beta
        actual = functional.conv2d(x, done.state_dict[f'{layer}.conv.weight'],
                                   done.state_dict[f'{layer}.conv.bias'])
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-2)


def test_a_clip_of_open_clip(tmp_path):
    """Its names stay; frozen batch norms have left no counters."""
    model = narrow_json(tmp_path, 'RN50x64', dict(width=8),
                        dict(width=64, heads=1))
    own = empty_clip(model).state_dict()
    name = 'refined_clip: RN50x64'
    assert set(KEYS[name]) == set(own)
    weights = weights_of(name, like=own)
    counters = [key for key in weights if 'num_batches_tracked' in key]
    for key in counters:
        del weights[key]
    done = convert_clip(weights, model)
    assert done.family.name == 'clip'
    assert (sorted(done.kept), len(done.converted)) == (sorted(counters),
                                                        len(weights))
    for key, value in weights.items():
        assert torch.equal(done.state_dict[key], value)
    file = tmp_path / 'refined.pt'
    torch.save(dict(state_dict=done.state_dict), file)
    loaded = open_clip.create_model(Path(model).stem, str(file)).state_dict()
    assert torch.equal(loaded['visual.bn1.weight'],
                       weights['visual.bn1.weight'])
    del weights['visual.bn1.weight']
    with pytest.raises(ValueError, match='missing: visual.bn1.weight'):
        convert_clip(weights, model)


def test_an_eva_clip(tmp_path):
    model = narrow_json(tmp_path, 'EVA02-B-16', {},
                        dict(width=64, heads=1, layers=12))
    own = empty_clip(model).state_dict()
    weights = weights_of('refined_clip: EVA02-CLIP-B-16', like=own)
    done = convert_clip(weights, model)
    assert done.family.name == 'eva_clip'
    assert list(done.state_dict) == list(own)
    assert [len(names) for names in done.unused.values()] == [26]
    # EVA's gate and its other half, their norm, and a bias, as timm has them.
    for theirs, ours in (('mlp.w1.weight', 'mlp.fc1_g.weight'),
                         ('mlp.w2.weight', 'mlp.fc1_x.weight'),
                         ('mlp.ffn_ln.bias', 'mlp.norm.bias'),
                         ('attn.q_bias', 'attn.q_proj.bias')):
        assert torch.equal(weights[f'visual.blocks.3.{theirs}'],
                           done.state_dict[f'visual.trunk.blocks.3.{ours}'])
    with pytest.raises(ValueError, match='expected an EVA of open_clip'):
        convert_clip(
            weights,
            narrow_json(tmp_path, 'ViT-B-16', dict(width=48, head_width=12)))
