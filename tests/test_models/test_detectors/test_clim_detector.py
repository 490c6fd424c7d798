# Licensed under the Apache License, Version 2.0.
import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint, save_checkpoint
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_clim.models import connected_zero
from mmdet_clim.models.text_encoders import SentenceTextEncoder


def losses_of(model, batch, seed=0):
    torch.manual_seed(seed)
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    return model(**data, mode='loss')


def test_names_and_gradients(clim_cfg, batch):
    model = MODELS.build(clim_cfg).train()
    losses = losses_of(model, batch)
    assert {
        'loss_rpn_cls', 'loss_cls', 'loss_bbox', 'mosaic.caption.loss',
        'mosaic.caption.recall@1', 'mosaic.tag.loss', 'mosaic.tag.recall@1'
    } <= set(losses)
    total, logs = model.parse_losses(losses)
    summed = sum(v.sum() if torch.is_tensor(v) else sum(x.sum() for x in v)
                 for k, v in losses.items() if 'loss' in k)
    torch.testing.assert_close(total, summed)
    total.backward()
    for name, param in model.named_parameters():
        assert param.grad is not None, name
        assert param.grad.isfinite().all(), name


def test_a_frozen_part(clim_cfg, batch):
    """It has no gradient; what is behind it has the same one as before."""
    model, frozen = (
        MODELS.build(cfg).train()
        for cfg in (clim_cfg, dict(clim_cfg, frozen=['backbone'])))
    frozen.load_state_dict(model.state_dict())
    for each in (model, frozen):
        each.parse_losses(losses_of(each, batch))[0].backward()
    others = dict(model.named_parameters())
    for name, weight in frozen.named_parameters():
        if name.startswith('detector.backbone.'):
            assert weight.grad is None, name
        else:
            torch.testing.assert_close(weight.grad, others[name].grad)
    with pytest.raises(
            ValueError,
            match="frozen: no weight of .* has 'bakbone' in its name, "
            'expected a part such as backbone'):
        MODELS.build(dict(clim_cfg, frozen=['bakbone']))


def test_mosaics_reach_backbone_and_projection_alone(clim_cfg, make):
    """Tile boxes are no objects: RPN and regressor learn nothing of them."""
    model = MODELS.build(clim_cfg).train()
    data = model.data_preprocessor(make['collate'](make['mosaic'](0)), True)
    sum(v
        for k, v in model.branch_loss('mosaic', data['inputs']['mosaic'],
                                      data['data_samples']['mosaic']).items()
        if 'loss' in k).backward()
    reached = {
        name.split('.')[1] if 'roi_head' not in name else name.split('.')[3]
        for name, p in model.detector.named_parameters(prefix='detector')
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert reached == {'backbone', 'fc_cls'}


def test_boxes_branch_is_the_plain_detector(clim_cfg, detector_cfg, make):
    model = MODELS.build(clim_cfg).eval()
    plain = MODELS.build(detector_cfg).eval()
    plain.load_state_dict(model.detector.state_dict())
    batch = make['collate'](make['box'](1), make['box'](2))
    wrapped = losses_of(model, batch)
    torch.manual_seed(0)
    data = plain.data_preprocessor(copy.deepcopy(batch), True)
    expected = plain(**data, mode='loss')
    for key, value in expected.items():
        torch.testing.assert_close(wrapped[key], value)
    assert wrapped['absent_branches.loss'] == 0


def test_an_absent_branch_reaches_every_parameter_of_several_ranks(
        clim_cfg, make, monkeypatch):
    """Or DDP would wait; of one process it reaches none."""
    model = MODELS.build(clim_cfg).train()
    with torch.no_grad():  # its own value does not matter
        next(model.parameters()).fill_(torch.inf)
    monkeypatch.setattr(connected_zero, 'get_world_size', lambda: 2)
    zero = connected_zero.connected_zero([model])
    zero.backward()
    assert zero == 0
    assert all(not p.grad.any() for p in model.parameters())


def test_weight_decay_leaves_alone_what_captions_do_not_train(clim_cfg, make):
    model = MODELS.build(clim_cfg).train()
    before = copy.deepcopy(model.state_dict())
    optim = OptimWrapper(
        torch.optim.AdamW(model.parameters(), lr=.1, weight_decay=.5))
    model.train_step(make['collate'](make['mosaic'](0)), optim)
    moved = {
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert any('backbone' in name for name in moved)
    assert not any('rpn_head' in name or 'fc_reg' in name for name in moved)


def test_texts_of_another_encoder_than_the_classes(clim_cfg, tmp_path):
    """Of one width, and of another space."""
    names = ['cat', 'dog', 'cow', 'bus', 'cup']
    torch.manual_seed(5)
    torch.save(
        dict(names=names, vectors=torch.randn(5, 8)), tmp_path / 'other.pth')
    other = dict(
        type='mmdet_clim.PrecomputedTextEncoder',
        file=str(tmp_path / 'other.pth'))
    with pytest.raises(
            ValueError, match="text_encoder: .*that of 'cat' differs"):
        MODELS.build(dict(clim_cfg, text_encoder=other))


def test_the_text_encoder_is_the_detectors_own(clim_cfg, detector_cfg):
    clim_cfg.pop('text_encoder')
    model = MODELS.build(clim_cfg)
    assert model.text_encoder.dim == 8
    again = MODELS.build(clim_cfg)
    assert again.text_encoder is model.text_encoder
    clim_cfg.detector = dict(detector_cfg)
    clim_cfg.detector.roi_head.bbox_head = dict(
        type='mmdet.BBoxHead', in_channels=16, roi_feat_size=4, num_classes=5)
    with pytest.raises(TypeError, match='text_encoder: objectives[.]'):
        MODELS.build(clim_cfg)


def test_every_class_name_is_encoded_once(clim_cfg, centernet2_cfg, make,
                                          bert_folder, monkeypatch):
    """Whatever the number of stages and objectives, and the captions too."""
    encoder = dict(
        type='mmdet_clim.SentenceTextEncoder', path=str(bert_folder))
    for head in centernet2_cfg.roi_head.bbox_head:
        head.classifier.text_encoder = encoder
    clim_cfg.objectives.caption.queue.dim = 16
    encoded = []
    encode = SentenceTextEncoder._encode
    monkeypatch.setattr(
        SentenceTextEncoder, '_encode', lambda self, texts: encoded.extend(
            dict.fromkeys(texts)) or encode(self, texts))
    cfg = ConfigDict(clim_cfg, detector=centernet2_cfg, text_encoder=encoder)
    model = MODELS.build(cfg).train()
    losses_of(model, make['collate'](make['mosaic'](0)))
    losses_of(model, make['collate'](make['mosaic'](0)))
    assert sorted(encoded) == sorted([
        'cat', 'dog', 'cow', 'bus', 'cup', 'a cat.', 'two dogs.',
        'a cow on grass.', 'a red bus.'
    ])


@pytest.mark.parametrize('name', ['caption', 'tag'])
def test_a_loss_that_gathers_is_refused(clim_cfg, name):
    clim_cfg['objectives'][name]['loss']['gather'] = True
    with pytest.raises(ValueError, match='loss: expected gather=False'):
        MODELS.build(clim_cfg)


def test_averaged_weights_follow_whatever_is_made_later(clim_cfg, batch):
    """Of MMEngine's averages, also those of all buffers."""
    model = MODELS.build(clim_cfg).train()
    averaged = ExponentialMovingAverage(model, update_buffers=True)
    losses_of(model, batch)  # the tags' classes are encoded here
    averaged.update_parameters(model)
    model.detector.roi_head.bbox_head.set_vocabulary(['cat', 'cup'])
    averaged.update_parameters(model)
    names = {name for name, _ in averaged.module.named_buffers()}
    assert not any('class' in name or 'weights' in name for name in names)


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16, torch.double])
def test_a_model_of_another_dtype(clim_cfg, make, dtype):
    """Its classes stay in float32, and its scores are what they were."""
    model = MODELS.build(clim_cfg).detector.eval()
    head = model.roi_head.bbox_head
    features = torch.randn(3, 16, 4, 4)
    expected, _ = head(features)
    found, _ = head.to(dtype)(features.to(dtype))
    assert head.fc_cls.class_embeddings.dtype == torch.float32
    torch.testing.assert_close(found.float(), expected, rtol=.05, atol=.3)


def test_a_model_that_is_pickled(clim_cfg, make):
    model = MODELS.build(clim_cfg).eval()
    again = pickle.loads(pickle.dumps(model))
    batch = make['collate'](make['box'](1))
    mine, other = (
        of.test_step(copy.deepcopy(batch))[0].pred_instances
        for of in (model, again))
    assert torch.equal(mine.scores, other.scores)


def test_prediction_is_the_plain_detectors(clim_cfg, detector_cfg, make):
    model = MODELS.build(clim_cfg).eval()
    plain = MODELS.build(detector_cfg).eval()
    plain.load_state_dict(model.detector.state_dict())
    batch = make['collate'](make['box'](1))
    mine = model.test_step(copy.deepcopy(batch))[0].pred_instances
    other = plain.test_step(copy.deepcopy(batch))[0].pred_instances
    assert len(mine) == 10
    assert torch.equal(mine.bboxes, other.bboxes)
    assert torch.equal(mine.scores, other.scores)


@pytest.mark.parametrize('wrapped', [False, True])
def test_checkpoints_of_both_forms_load(clim_cfg, detector_cfg, tmp_path,
                                        wrapped):
    model = MODELS.build(clim_cfg)
    source = MODELS.build(clim_cfg if wrapped else detector_cfg)
    file = str(tmp_path / 'source.pth')
    save_checkpoint(dict(state_dict=source.state_dict()), file)
    own = {
        name: value.clone()
        for name, value in (source if wrapped else model).state_dict().items()
        if not name.startswith('detector.')
    }
    # Strict: nothing is reported as missing.
    load_checkpoint(model, file, strict=True)
    for name, value in own.items():
        torch.testing.assert_close(model.state_dict()[name], value)
    weights = source.detector if wrapped else source
    for name, value in weights.state_dict().items():
        torch.testing.assert_close(model.detector.state_dict()[name], value)


def test_text_encoder_is_not_saved(clim_cfg):
    model = MODELS.build(clim_cfg)
    assert not any('text_encoder' in key for key in model.state_dict())
    assert not list(model.text_encoder.parameters())


def test_norms_keep_their_statistics(clim_cfg, batch):
    model = MODELS.build(clim_cfg).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    before = [m.running_mean.clone() for m in norms]
    losses_of(model, batch)
    assert norms
    assert all(torch.equal(a, m.running_mean) for a, m in zip(before, norms))
    model = MODELS.build(dict(clim_cfg, norm_eval=False)).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    losses_of(model, batch)
    assert any((m.running_mean != 0).any() for m in norms)


@pytest.mark.parametrize(
    'of_head, loss, warned',
    [
        (-20., dict(bias=-12.), False),
        # Undecided at a cosine of 12 / 25: 25 * 0.48 - 4.6 = 7.4.
        (-4.6, dict(bias=-12.), '0.48 (bias -12), where the detector is '
         'certain of it already (bias -4.6, a logit of 7.4)'),
        (None, dict(bias=-12.), 'bias=0 or'),
        (-4.6, dict(bias=-4.6), False),
        # Undecided at 12 / 50: 1.4.
        (-4.6, dict(bias=-12., temperature=50.), False),
        (-4.6, dict(kind='softmax'), False),
    ])
def test_a_loss_that_lets_the_head_be_certain(clim_cfg, caplog, of_head, loss,
                                              warned):
    head = clim_cfg.detector.roi_head.bbox_head
    head.classifier.update(temperature=25., bias=of_head)
    clim_cfg.objectives = dict(
        tag=dict(
            clim_cfg.objectives.tag,
            loss=dict(type='mmdet_clim.CLIMRegionLoss', **loss)))
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        MODELS.build(clim_cfg)
    finally:
        logger.removeHandler(caplog.handler)
    assert ('is undecided' in caplog.text) == bool(warned)
    assert not warned or warned in caplog.text


def test_train_step_lowers_the_loss(clim_cfg, batch):
    torch.manual_seed(0)
    model = MODELS.build(clim_cfg).train()
    optim = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-2))
    values = []
    for _ in range(12):
        torch.manual_seed(0)
        logs = model.train_step(copy.deepcopy(batch), optim)
        values.append((logs['mosaic.tag.loss'].item(),
                       logs['mosaic.caption.loss'].item()))
    assert values[-1][0] < 0.7 * values[0][0]
    assert values[-1][1] < 0.9 * values[0][1]


def test_bfloat16_autocast_computes_losses_in_float32(clim_cfg, make):
    model = MODELS.build(clim_cfg).train()
    data = model.data_preprocessor(make['collate'](make['mosaic'](0)), True)
    args = ('mosaic', data['inputs']['mosaic'], data['data_samples']['mosaic'])
    torch.manual_seed(0)
    full = copy.deepcopy(model).branch_loss(*args)
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = model.branch_loss(*args)
    for key in ('mosaic.caption.loss', 'mosaic.tag.loss'):
        assert half[key].dtype == torch.float32
        torch.testing.assert_close(half[key], full[key], rtol=.2, atol=.2)


@pytest.mark.parametrize('changes, message', [
    (dict(objectives={}), 'at least one'),
    (dict(branches=dict(mosaic=['caption', 'nothing'])), 'nothing'),
    (dict(branches=dict(mosaic=['caption'])), "no branch uses \\['tag'\\]"),
    (dict(branches=dict(boxes=['caption', 'tag'])), 'boxes'),
    (dict(branches={'my.loss': ['caption', 'tag']}), 'dot'),
])
def test_bad_branches(clim_cfg, changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build({**clim_cfg, **changes})


def test_a_branch_nobody_configured(clim_cfg, make):
    model = MODELS.build(clim_cfg).train()
    batch = make['collate'](make['mosaic'](0, branch='stories'))
    with pytest.raises(ValueError, match='stories'):
        losses_of(model, batch)


def test_a_reader_that_does_not_fit(clim_cfg):
    clim_cfg['detector']['roi_head']['bbox_head'] = dict(
        type='mmdet.Shared2FCBBoxHead',
        in_channels=16,
        roi_feat_size=4,
        num_classes=5)
    clim_cfg['region_reader'] = dict(type='mmdet_clim.TwoStageReader')
    with pytest.raises(TypeError, match='ZeroShotBBoxHead'):
        MODELS.build(clim_cfg)


def test_ema_that_starts_before_the_first_step(clim_cfg, batch):
    """As MMEngine starts it: nothing has been filled yet."""
    model = MODELS.build(clim_cfg).train()
    runner = SimpleNamespace(model=model, iter=0, epoch=0)
    hook = EMAHook(momentum=.25, update_buffers=True)
    hook.before_run(runner)
    name = 'detector.roi_head.bbox_head.fc_cls.projection.weight'
    weight = model.get_parameter(name)
    first = weight.detach().clone()
    for step in range(2):
        losses_of(model, batch)
        hook.after_train_iter(runner, step)
        with torch.no_grad():
            weight += 1
    # Validated is 3/4 of the first and 1/4 of the second: first + 1/4.
    hook.before_val_epoch(runner)
    torch.testing.assert_close(weight.detach(), first + .25)
    losses_of(model, batch)
    hook.after_val_epoch(runner)
    torch.testing.assert_close(weight.detach(), first + 2)
