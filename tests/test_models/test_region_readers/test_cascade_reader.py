# Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

from mmdet_clim.models.region_readers import CascadeReader, TwoStageReader


@pytest.fixture
def cascade_clim_cfg(clim_cfg, centernet2_cfg):
    """CenterNet2 under ``CLIMDetector``, both objectives."""
    return dict(clim_cfg, detector=centernet2_cfg)


@pytest.fixture
def model(cascade_clim_cfg):
    torch.manual_seed(0)
    model = MODELS.build(cascade_clim_cfg).train()
    for head in model.detector.roi_head.bbox_head:
        # Freshly initialised regressors move nothing.
        torch.nn.init.normal_(head.fc_reg.weight, std=.5)
    return model


@pytest.fixture
def mosaics(model, make):
    """Images and samples of two mosaics, and their feature maps."""
    data = model.data_preprocessor(
        make['collate'](make['mosaic'](3), make['mosaic'](4)), True)
    inputs = data['inputs']['mosaic']
    return inputs, data['data_samples']['mosaic'], model.extract_feat(inputs)


def losses_of(model, batch, seed=0):
    torch.manual_seed(seed)
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    return model(**data, mode='loss')


def test_the_cascade_finds_its_reader(model):
    assert isinstance(model.region_reader, CascadeReader)


def test_names_and_gradients(model, batch):
    losses = losses_of(model, batch)
    assert {k
            for k in losses if k.startswith('mosaic')} == {
                'mosaic.caption.loss', 'mosaic.caption.recall@1',
                'mosaic.tag.loss', 'mosaic.tag.recall@1'
            }
    total, _ = model.parse_losses(losses)
    total.backward()
    for name, param in model.named_parameters():
        assert param.grad is not None, name
        assert param.grad.isfinite().all(), name


def test_every_stage_embeds_with_its_own_head(model, mosaics):
    _, samples, feats = mosaics
    detector, reader = model.detector, model.region_reader
    rois = bbox2roi([sample.gt_instances.bboxes for sample in samples])
    proposals = reader.propose(detector, feats, samples)
    stages = list(reader.stages(detector, feats, proposals, samples))
    assert [s.weight for s in stages] == [1, .5, .25]
    assert [s.is_last for s in stages] == [False, False, True]
    read = [s.read(rois) for s in stages]
    for embeddings, head, extractor in zip(
            read, detector.roi_head.bbox_head,
            detector.roi_head.bbox_roi_extractor):
        x = extractor(feats[:3], rois).flatten(1)
        for fc in head.shared_fcs:
            x = fc(x).relu()
        torch.testing.assert_close(embeddings, head.fc_cls.projection(x))
    assert torch.equal(read[-1], reader.read(detector, feats, rois))
    assert not torch.equal(read[0], read[-1])


def test_proposals_are_refined_by_the_stage_before(model, mosaics):
    _, samples, feats = mosaics
    detector, reader = model.detector, model.region_reader
    proposals = reader.propose(detector, feats, samples)
    boxes = [of_image.bboxes for of_image in proposals]
    scores = [of_image.scores for of_image in proposals]
    for stage in reader.stages(detector, feats, proposals, samples):
        for expected, found in zip(boxes, stage.proposals):
            torch.testing.assert_close(found.bboxes, expected)
            assert not found.bboxes.requires_grad
        for expected, found in zip(scores, stage.proposals):
            assert torch.equal(found.scores, expected)
        head = detector.roi_head.bbox_head[stage.index]
        moved = []
        for number, of_image in enumerate(boxes):
            rois = bbox2roi([of_image])
            rois[:, 0] = number
            _, deltas = head(detector.roi_head.bbox_roi_extractor[stage.index](
                feats[:3], rois))
            moved.append(
                head.bbox_coder.decode(of_image, deltas,
                                       max_shape=(64, 64)).detach())
        assert (moved[0] - boxes[0]).abs().max() > .1
        boxes = moved


def test_losses_are_weighted_sums_of_the_stages(model, mosaics):
    """The same by calling objectives, stage after stage, in plain loops."""
    inputs, samples, feats = mosaics
    expected = dict(caption=0., tag=0.)
    recall = dict(caption=0., tag=0.)
    copied = copy.deepcopy(model)
    torch.manual_seed(1)
    feats = copied.extract_feat(inputs)
    reader, detector = copied.region_reader, copied.detector
    proposals = reader.propose(detector, feats, samples)
    for stage, weight in enumerate([1, .5, .25]):
        chosen = {
            name: [o.sample(p, s) for p, s in zip(proposals, samples)]
            for name, o in copied.objectives.items()
        }
        for name, objective in copied.objectives.items():
            rois = bbox2roi([r.bboxes for r in chosen[name]])
            values = objective.loss(
                reader.read(detector, feats, rois, stage), chosen[name],
                copied.text_encoder, stage == 2)
            expected[name] += weight * values['loss'].item()
            recall[name] += values['recall@1'].item() / 3
        proposals = reader.refine(detector, feats, proposals, samples, stage)
    torch.manual_seed(1)
    losses = model.branch_loss('mosaic', inputs, samples)
    for name in expected:
        assert losses[f'mosaic.{name}.loss'].item() == pytest.approx(
            expected[name], rel=1e-5)
        assert losses[f'mosaic.{name}.recall@1'].item() == pytest.approx(
            recall[name], rel=1e-5)


def test_compositions_are_drawn_in_each_stage(model, mosaics, monkeypatch):
    inputs, samples, _ = mosaics
    drawn = []
    objective = model.objectives['caption']
    sample = objective.sample
    monkeypatch.setattr(objective, 'sample',
                        lambda *args: drawn.append(sample(*args)) or drawn[-1])
    model.branch_loss('mosaic', inputs, samples)
    assert len(drawn) == 3 * len(samples)
    assert len({str(regions.members.tolist()) for regions in drawn}) > 2


def test_the_queue_takes_the_texts_of_a_step_once(model, mosaics):
    inputs, samples, _ = mosaics
    model.objectives['caption'].queue.size = 6
    model.branch_loss('mosaic', inputs, samples[:1] * 2)
    queue = model.objectives['caption'].queue
    assert len(queue) == 6
    kept = queue.ids.clone()
    model.branch_loss('mosaic', inputs, samples)
    # Eight texts in a queue of six: those of this step alone, each once.
    assert len(set(queue.ids.tolist())) == 6
    assert queue.ids.tolist() != kept.tolist()


def test_train_steps_lower_the_losses(model, batch):
    optim = OptimWrapper(torch.optim.Adam(model.parameters(), lr=5e-3))
    values = []
    for _ in range(12):
        torch.manual_seed(0)
        logs = model.train_step(copy.deepcopy(batch), optim)
        values.append([logs[f'mosaic.{k}.loss'] for k in ('caption', 'tag')])
    for first, last in zip(values[0], values[-1]):
        assert last < .8 * first


def test_images_without_proposals(model, mosaics):
    _, samples, feats = mosaics
    empty = InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0))
    one = InstanceData(
        bboxes=torch.tensor([[4., 4., 30., 30.]]), scores=torch.ones(1))
    for proposals in ([empty, empty], [empty, one], [one, empty]):
        stages = model.region_reader.stages(model.detector, feats, proposals,
                                            samples)
        for stage in stages:
            assert [len(p)
                    for p in stage.proposals] == [len(p) for p in proposals]
            assert stage.read(torch.zeros(0, 5)).shape == (0, 8)


def test_objectives_that_need_no_proposals(cascade_clim_cfg, batch):
    cascade_clim_cfg['objectives'].pop('tag')
    model = MODELS.build(cascade_clim_cfg).train()
    assert losses_of(model, batch)['mosaic.caption.loss'] > 0


def test_bfloat16_autocast(model, mosaics):
    inputs, samples, _ = mosaics
    torch.manual_seed(0)
    full = copy.deepcopy(model).branch_loss('mosaic', inputs, samples)
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = model.branch_loss('mosaic', inputs, samples)
    for key in ('mosaic.caption.loss', 'mosaic.tag.loss'):
        assert half[key].dtype == torch.float32
        torch.testing.assert_close(half[key], full[key], rtol=.2, atol=.2)


def test_detectors_that_it_does_not_fit(detector_cfg, centernet2_cfg):
    two_stage = MODELS.build(detector_cfg)
    with pytest.raises(TypeError, match='CascadeRoIHead'):
        CascadeReader().check(two_stage)
    with pytest.raises(TypeError, match='StandardRoIHead'):
        TwoStageReader().check(MODELS.build(centernet2_cfg))
    plain = copy.deepcopy(centernet2_cfg)
    plain.roi_head.bbox_head[2] = dict(
        type='mmdet.Shared2FCBBoxHead',
        in_channels=16,
        roi_feat_size=4,
        reg_class_agnostic=True,
        num_classes=5)
    with pytest.raises(TypeError, match='stage 2'):
        CascadeReader().check(MODELS.build(plain))
