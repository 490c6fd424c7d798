# Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

from mmdet_clim.models.objectives import BranchContext, Proposals
from mmdet_clim.models.region_readers import CascadeReader, TwoStageReader
from mmdet_clim.models.roi_heads import ZeroShotClassifier


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
    """Images and samples of two mosaics."""
    data = model.data_preprocessor(
        make['collate'](make['mosaic'](3), make['mosaic'](4)), True)
    return data['inputs']['mosaic'], data['data_samples']['mosaic']


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
    inputs, samples = mosaics
    detector, reader = model.detector, model.region_reader
    rois = bbox2roi([sample.gt_instances.bboxes for sample in samples])
    feats = reader.extract_feat(detector, inputs, samples)
    stages = reader.stages(detector, feats)
    assert [s.weight for s in stages] == [1, .5, .25]
    read = [s.read(rois) for s in stages]
    for embeddings, head, extractor in zip(
            read, detector.roi_head.bbox_head,
            detector.roi_head.bbox_roi_extractor):
        x = extractor(feats.levels[:3], rois).flatten(1)
        for fc in head.shared_fcs:
            x = fc(x).relu()
        torch.testing.assert_close(embeddings, head.fc_cls.projection(x))
    assert not torch.equal(read[0], read[-1])


def test_regions_that_are_words_are_read_as_texts(cascade_clim_cfg,
                                                  bert_folder, batch):
    """BARON's classifier in each stage of a cascade."""
    encoder = dict(
        type='mmdet_clim.SentenceTextEncoder', path=str(bert_folder))
    cascade_clim_cfg['text_encoder'] = encoder
    cascade_clim_cfg['objectives'].caption.queue.dim = 16
    for head in cascade_clim_cfg['detector'].roi_head.bbox_head:
        head.classifier = dict(
            type='mmdet_clim.PseudoWordClassifier',
            text_encoder=encoder,
            templates=('{}', ),
            num_words=2,
            drop_prob=0.)
    torch.manual_seed(0)
    model = MODELS.build(cascade_clim_cfg).train()
    losses = losses_of(model, batch)
    for name in ('caption', 'tag'):
        assert losses[f'mosaic.{name}.loss'].isfinite()
    reader, detector = model.region_reader, model.detector
    feats = reader.extract_feat(detector, torch.rand(1, 3, 64, 64))
    rois = torch.tensor([[0., 4, 4, 40, 40], [0., 0, 0, 64, 20]])
    for stage in reader.stages(detector, feats):
        words = stage.read(rois).view(2, 2, 16)
        torch.testing.assert_close(
            stage.read_as_text(rois),
            model.text_encoder.encode_words(words, torch.tensor([2, 2])))


def context_of(model, mosaics):
    inputs, samples = mosaics
    return BranchContext(model.detector, model.region_reader,
                         model.text_encoder, inputs, samples)


def moved(detector, stage, feats, boxes, shape=(64, 64)):
    """The boxes of each image as mmdet's own head regresses them."""
    head = detector.roi_head.bbox_head[stage]
    found = []
    for number, of_image in enumerate(boxes):
        rois = bbox2roi([of_image])
        rois[:, 0] = number
        _, deltas = head(detector.roi_head.bbox_roi_extractor[stage](
            feats.levels[:3], rois))
        found.append(
            head.bbox_coder.decode(of_image, deltas, max_shape=shape).detach())
    return found


def test_proposals_are_refined_by_the_stage_before(model, mosaics):
    context = context_of(model, mosaics)
    detector = model.detector
    boxes = list(context.proposals.boxes)
    scores = context.proposals.scores
    assert [s.is_last for s in context.stages] == [False, False, True]
    for stage in context.stages:
        found = stage.tile_proposals().proposals
        torch.testing.assert_close(list(found.boxes), boxes)
        assert not found.boxes.requires_grad
        assert torch.equal(found.scores, scores)
        again = moved(detector, stage.index, context.feats, boxes)
        assert (again[0] - boxes[0]).abs().max() > .1
        boxes = again


def test_images_of_two_sizes_are_clipped_each_to_its_own(model, mosaics):
    context = context_of(model, mosaics)
    context.data_samples[1].set_metainfo(dict(img_shape=(40, 48)))
    boxes = list(context.proposals.boxes)
    found = context.stages[1].tile_proposals().proposals.boxes
    for number, shape in enumerate([(64, 64), (40, 48)]):
        expected = moved(model.detector, 0, context.feats, boxes, shape)
        torch.testing.assert_close(found[number], expected[number])
    assert found[1, :, 3].max() == 40 and found[0, :, 3].max() > 40


def test_no_more_proposals_are_refined_than_tiles_can_keep(
        model, mosaics, monkeypatch):
    """Those that tiles keep, then the best of the others."""
    context = context_of(model, mosaics)
    asked = []
    for stage in context.readings[:-1]:
        refine = stage.refine
        stage.refine = lambda rois, refine=refine: asked.append(
            rois) or refine(rois)
    first = context.stages[0].tile_proposals(.3, 2)
    context.stages[2].tile_proposals(.3, 2)
    # Four tiles in each of two images, two proposals each, two stages.
    assert [len(rois) for rois in asked] == [16, 16]
    for number in range(2):
        kept = first.owns[number].any(1)
        best = kept.nonzero().flatten().tolist()
        best += (~kept).nonzero().flatten().tolist()[:8 - len(best)]
        rois = asked[0][asked[0][:, 0] == number]
        torch.testing.assert_close(
            rois[:, 1:], context.proposals.boxes[number][sorted(best)])
    # A class is scored by none of it.
    monkeypatch.setattr(ZeroShotClassifier, 'score', None)
    context_of(model, mosaics).stages[2].tile_proposals()


def test_losses_are_weighted_sums_of_the_stages(model, mosaics):
    """The same by calling objectives, stage after stage."""
    inputs, samples = mosaics
    copied = copy.deepcopy(model)
    expected, recall = {}, {}
    torch.manual_seed(1)
    context = context_of(copied, mosaics)
    for name, objective in copied.objectives.items():
        expected[name] = recall[name] = 0.
        for stage, weight in zip(context.stages, [1, .5, .25]):
            regions = objective.sample(context.tiles, stage)
            values = objective.compare(
                stage.read(regions.rois), regions, context, stage.index == 2)
            expected[name] += weight * values['loss'].item()
            recall[name] += values['recall@1'].item() / 3
    torch.manual_seed(1)
    losses = model.branch_loss('mosaic', inputs, samples)
    for name in expected:
        assert losses[f'mosaic.{name}.loss'].item() == pytest.approx(
            expected[name], rel=1e-5)
        assert losses[f'mosaic.{name}.recall@1'].item() == pytest.approx(
            recall[name], rel=1e-5)


def test_compositions_are_drawn_in_each_stage(model, mosaics, monkeypatch):
    inputs, samples = mosaics
    drawn = []
    objective = model.objectives['caption']
    sample = objective.sample
    monkeypatch.setattr(objective, 'sample',
                        lambda *args: drawn.append(sample(*args)) or drawn[-1])
    model.branch_loss('mosaic', inputs, samples)
    assert len(drawn) == 3
    assert len({str(regions.members.tolist()) for regions in drawn}) > 1


def test_the_queue_takes_the_texts_of_a_step_once(model, mosaics):
    inputs, samples = mosaics
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
    empty = InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0))
    one = InstanceData(
        bboxes=torch.tensor([[4., 4., 30., 30.]]), scores=torch.ones(1))
    for proposals in ([empty, empty], [empty, one], [one, empty]):
        context = context_of(model, mosaics)
        context.proposals = Proposals.of_images(proposals)
        for stage in context.stages:
            found = stage.tile_proposals()
            assert found.proposals.counts == [len(p) for p in proposals]
            assert found.owns.sum(
                (1, 2)).tolist() == [len(p) for p in proposals]
            assert stage.read(torch.zeros(0, 5)).shape == (0, 8)


def test_what_no_objective_asks_for_is_not_made(model, mosaics, monkeypatch):
    monkeypatch.setattr(CascadeReader, 'propose', None)
    for name, objective in model.objectives.items():
        objective.regions = 'tiles'
        assert objective.losses(context_of(model, mosaics))['loss'] > 0, name


def test_bfloat16_autocast(model, mosaics):
    inputs, samples = mosaics
    torch.manual_seed(0)
    full = copy.deepcopy(model).branch_loss('mosaic', inputs, samples)
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = model.branch_loss('mosaic', inputs, samples)
    for key in ('mosaic.caption.loss', 'mosaic.tag.loss'):
        assert half[key].dtype == torch.float32
        torch.testing.assert_close(half[key], full[key], rtol=.2, atol=.2)


def test_candidates_of_tags_are_the_regions_as_they_were_refined(
        model, mosaics):
    """REFERENCE.md, section 2: the selected and composed ones."""
    objective = MODELS.build(
        dict(
            type='mmdet_clim.RegionTagObjective',
            vocabulary=model.detector.roi_head.bbox_head[0].vocabulary,
            templates=('{}', ),
            num_compositions=2,
            refine_regions=True,
            loss=dict(type='mmdet_clim.CLIMRegionLoss')))
    context = context_of(model, mosaics)
    for sample in context.data_samples:  # every tile is tagged
        sample.set_metainfo(dict(tags=[[0]] * len(sample.tags)))
    tiles, before = context.tiles, None
    for stage in context.stages:
        stage.regions_before = before
        regions = objective.sample(tiles, stage)
        single = regions.members.sum(1) == 1
        if before is None:
            expected = stage.largest_in_tiles()
        else:
            expected = largest_by_hand(
                tiles.boxes,
                moved(model.detector, stage.index - 1, context.feats, [
                    before.bboxes[before.image == image]
                    for image in range(len(tiles.counts))
                ]))
        torch.testing.assert_close(regions.bboxes[single],
                                   expected.flatten(0, 1))
        assert (~single).sum() == 4 and not regions.rois.requires_grad
        before = regions
    # Without one, the tiles themselves.
    stage.regions_before = tiles.regions(tiles.boxes, before.image[:0],
                                         before.members[:0])
    assert torch.equal(stage.largest_refined(), tiles.boxes)


def test_a_head_that_regresses_per_class(model, mosaics, centernet2_cfg):
    """Boxes are those of the likeliest class, as in mmdet's own cascade."""
    roi_head = model.detector.roi_head
    head = roi_head.bbox_head[0] = MODELS.build(
        dict(centernet2_cfg.roi_head.bbox_head[0], reg_class_agnostic=False))
    torch.nn.init.normal_(head.fc_reg.weight, std=.5)
    context = context_of(model, mosaics)
    rois = torch.tensor([[0., 4, 4, 30, 30], [1., 20, 8, 60, 40]])
    with torch.no_grad():
        extractor = roi_head.bbox_roi_extractor[0]
        scores, deltas = head(
            extractor(context.feats.levels[:extractor.num_inputs], rois))
    own = torch.stack([
        row.view(-1, 4)[label] for row, label in zip(deltas, scores.argmax(1))
    ])
    expected = head.bbox_coder.decode(rois[:, 1:], own, max_shape=(64, 64))
    torch.testing.assert_close(context.readings[0].refine(rois), expected)


def test_boxes_of_images_as_proposals():
    boxes = torch.rand(5, 4)
    found = Proposals.of_rows(boxes, torch.tensor([5., 4., 3., 2., 1.]),
                              [2, 0, 3, 0])
    assert found.counts == [2, 0, 3, 0]
    assert found.scores.tolist() == [[5, 4, 0], [0] * 3, [3, 2, 1], [0] * 3]
    assert torch.equal(found.boxes[0, :2], boxes[:2])
    assert torch.equal(found.boxes[2], boxes[2:])
    assert not found.boxes[[1, 3]].any() and not found.boxes[0, 2].any()


def largest_by_hand(tiles, candidates):
    """The largest clamped candidate of each tile, of each image."""
    found = tiles.clone()
    for image, boxes in enumerate(candidates):
        areas = {}
        for box in boxes:
            low = torch.maximum(box[:2], tiles[image, :, :2])
            high = torch.minimum(box[2:], tiles[image, :, 2:])
            inside = (high - low).clamp(min=0).prod(1)
            tile = int(inside.argmax())
            area = float((box[2:] - box[:2]).prod())
            if inside[tile] > .3 * area and inside[tile] > areas.get(tile, 0):
                areas[tile] = inside[tile]
                found[image, tile] = torch.cat([low[tile], high[tile]])
    return found


def test_a_step_with_such_candidates(cascade_clim_cfg, batch):
    cascade_clim_cfg['objectives']['tag']['refine_regions'] = True
    torch.manual_seed(0)
    model = MODELS.build(cascade_clim_cfg).train()
    losses = losses_of(model, batch)
    assert losses['mosaic.tag.loss'] > 0
    losses['mosaic.tag.loss'].backward()
    heads = model.detector.roi_head.bbox_head
    assert all(h.fc_cls.projection.weight.grad.any() for h in heads)
    assert all(h.fc_reg.weight.grad is None for h in heads)


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
