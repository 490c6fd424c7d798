# Licensed under the Apache License, Version 2.0.
import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint, save_checkpoint
from torch.nn.modules.batchnorm import _BatchNorm


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
    # The absent mosaics give a zero that reaches every parameter.
    assert wrapped['absent_branches.loss'] == 0
    wrapped['absent_branches.loss'].backward()
    assert all(p.grad is not None for p in model.parameters())


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


def test_an_objective_needs_a_text_encoder(clim_cfg):
    clim_cfg.pop('text_encoder')
    with pytest.raises(TypeError, match='text_encoder: objectives[.]'):
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
