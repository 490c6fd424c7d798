# Licensed under the Apache License, Version 2.0.
"""Tags that detection transformers learn by their own loss."""
import copy
import math

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.config import Config, ConfigDict
from torch import distributed

from mmdet_clim.engine.config_checks import named_in_config
from mmdet_clim.registry import MODELS

CLASSES = ['cat', 'dog', 'cow', 'bus', 'cup']

QUERY = dict(type='mmdet_clim.DenseFeatureReader', source='query')
TAG = dict(
    type='mmdet_clim.QueryTagObjective',
    vocabulary=CLASSES,
    templates=('{}', ),
    max_proposals=2,
    loss=dict(type='mmdet_clim.CLIMRegionLoss', kind='softmax'),
    query_loss=dict(type='mmdet.FocalLoss', use_sigmoid=True, loss_weight=.5))


@pytest.fixture
def build(clim_cfg):

    def build(detector, reader=QUERY, **changes):
        torch.manual_seed(0)
        model = MODELS.build(
            ConfigDict(
                clim_cfg,
                detector=copy.deepcopy(detector),
                region_reader=reader,
                objectives=dict(tag=dict(TAG, **changes)),
                branches=dict(mosaic=['tag'])))
        model.init_weights()
        return model.train()

    return build


def losses_of(model, batch):
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    inputs = data['inputs']['mosaic']
    samples = data['data_samples']['mosaic']
    return model.branch_loss('mosaic', inputs, samples), inputs, samples


def set_tags(batch, tags):
    for sample in batch['data_samples']:
        if 'mosaic_grid' in sample:
            sample.set_metainfo(dict(tags=tags))


def focal(logit, is_positive):
    p = 1 / (1 + math.exp(-logit))
    return -.25 * (1 - p)**2 * math.log(p) if is_positive else \
        -.75 * p**2 * math.log(1 - p)


def in_tile(box, tile):
    """A box clamped to a tile, and the share of it that was in there."""
    clamped = [
        max(box[0], tile[0]),
        max(box[1], tile[1]),
        min(box[2], tile[2]),
        min(box[3], tile[3])
    ]
    width, height = clamped[2] - clamped[0], clamped[3] - clamped[1]
    area = (box[2] - box[0]) * (box[3] - box[1])
    return clamped, max(width, 0) * max(height, 0) / area


def expected_loss(model, inputs, samples):
    """The definition, query by query."""
    detector, reader = model.detector, model.region_reader
    with torch.no_grad():
        feats = reader.extract_feat(detector, inputs, samples)
        stage, = reader.stages(detector, feats)
        proposals = reader.propose(detector, feats)
    classifier = detector.bbox_head.cls_branches[-1].eval()
    total, count = 0, 0
    for index, (sample, found) in enumerate(zip(samples, proposals)):
        tiles = sample.gt_instances.bboxes.tolist()
        considered = [[] for _ in tiles]
        for box, score in zip(found.bboxes.tolist(), found.scores.tolist()):
            clamped = [in_tile(box, tile) for tile in tiles]
            best = max(range(len(tiles)), key=lambda i: clamped[i][1])
            if clamped[best][1] > .3 and len(considered[best]) < 2:
                considered[best].append((clamped[best][0], score))
        for tile, tags, queries in zip(tiles, sample.tags, considered):
            count += len(tags)
            if not tags:
                continue
            rois = torch.tensor([[index, *box] for box, _ in queries]
                                or [[index, *tile]])
            with torch.no_grad():
                logits = classifier.score(stage.read_as_text(rois))
                cosines = (logits -
                           classifier.logit_bias) / classifier.temperature
            likely = (25 * cosines).softmax(1)
            for tag in tags:
                values = [
                    math.sqrt(score) * likely[row, tag].item()
                    for row, (_, score) in enumerate(queries)
                ] or [1]
                best = values.index(max(values))
                total += focal(logits[best, tag].item(), True)
            for row in range(len(queries)):
                total += sum(
                    focal(logits[row, c].item(), False)
                    for c in range(len(CLASSES)) if c not in tags)
    classifier.train()
    return .5 * total / count


@pytest.mark.parametrize('tags', [None, [[1, 0], [], [2], [4]]])
def test_the_loss_is_that_of_its_definition(build, detr_cfg, batch, tags):
    model = build(detr_cfg)
    if tags is not None:
        set_tags(batch, tags)
    losses, inputs, samples = losses_of(model, batch)
    expected = expected_loss(model, inputs, samples)
    assert losses['mosaic.tag.query.loss'].item() == pytest.approx(
        expected, rel=1e-3)
    assert losses['mosaic.tag.loss'] > 0


def test_it_trains_what_names_boxes(build, detr_cfg, batch):
    model = build(detr_cfg)
    losses, *_ = losses_of(model, batch)
    losses['mosaic.tag.query.loss'].backward()
    head = model.detector.bbox_head.cls_branches[-1]
    decoder = model.detector.decoder.layers[-1].cross_attn.value_proj
    for weight in (head.projection.weight, head.logit_bias, decoder.weight):
        assert weight.grad.any()


def gradients(model, batch):
    losses, *_ = losses_of(model, batch)
    losses['mosaic.tag.query.loss'].backward()
    return {n: p.grad for n, p in model.named_parameters()}


def run_rank(rank, folder, model, batches):
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.save(gradients(model, batches[rank]), f'{folder}/rank{rank}.pth')


@pytest.mark.parametrize('first_tags', [[[1, 0], [], [2], [4]], [[]] * 4])
def test_two_ranks_learn_as_one(build, detr_cfg, make, tmp_path, first_tags):
    """One mosaic, maybe without a tag, on a rank and two on the other."""
    mosaics = [make['mosaic'](i) for i in (3, 4, 5)]
    mosaics[0][1].set_metainfo(dict(tags=first_tags))
    batches = make['collate'](mosaics[0]), make['collate'](*mosaics[1:])
    model = build(detr_cfg)
    mp.start_processes(
        run_rank, (str(tmp_path), model, batches), 2, start_method='fork')
    ranks = [torch.load(tmp_path / f'rank{rank}.pth') for rank in range(2)]
    expected = gradients(model, make['collate'](*mosaics))
    assert expected['detector.bbox_head.cls_branches.1.logit_bias'] != 0
    for name, grad in expected.items():
        # As DDP does; without gradients is what no rank trains.
        given = [r[name] for r in ranks if r[name] is not None]
        if grad is None:
            assert not any(g.any() for g in given), name
            continue
        torch.testing.assert_close(
            sum(given) / 2, grad, atol=1e-5, rtol=1e-3, msg=name)


def test_without_tags_there_is_nothing_to_learn(build, detr_cfg, batch):
    model = build(detr_cfg)
    set_tags(batch, [[]] * 4)
    losses, *_ = losses_of(model, batch)
    loss = losses['mosaic.tag.query.loss']
    assert loss == 0
    loss.backward()


@pytest.mark.parametrize('detector, reader', [
    ('detr', dict(QUERY, source='encoder')),
    ('fcos', None),
    ('detector', None),
])
def test_other_detectors_and_readers(request, build, detector, reader):
    cfg = request.getfixturevalue(f'{detector}_cfg')
    with pytest.raises(
            TypeError, match="objectives.tag: QueryTagObjective .*'query'"):
        build(cfg, reader)


@pytest.mark.parametrize(
    'loss',
    [
        dict(type='mmdet.CrossEntropyLoss'),
        dict(type='mmdet.L1Loss', reduction='what'),
        # One weight per region.
        dict(type='mmdet.QualityFocalLoss'),
        # No sum over the number of tags.
        dict(type='mmdet.FocalLoss', use_sigmoid=True, reduction='none'),
        dict(type='mmdet.FocalLoss', use_sigmoid=True, reduction='sum'),
    ])
def test_losses_of_other_targets_are_refused(loss):
    with pytest.raises(ValueError, match='query_loss: expected .*one-hot'):
        MODELS.build(dict(TAG, query_loss=loss))


@pytest.mark.parametrize('key, value', [('num_compositions', 0),
                                        ('regions', 'best')])
def test_what_is_left_of_another_objective_is_named(key, value):
    """As a config has it that changes the type of an inherited one."""
    cfg = Config(dict(model=dict(objectives=dict(tag={**TAG, key: value}))))
    with pytest.raises(
            TypeError,
            match=f"objectives.tag: QueryTagObjective takes no '{key}'"):
        with named_in_config(cfg):
            MODELS.build(cfg.model.objectives.tag)


@pytest.mark.parametrize('tag', [5, -1])
def test_a_tag_that_is_none_of_the_classes(build, detr_cfg, batch, tag):
    model = build(detr_cfg)
    set_tags(batch, [[0], [tag], [], [4]])
    with pytest.raises(
            ValueError, match=fr'tags: expected 0 to 4, .* got \[{tag}\]'):
        losses_of(model, batch)
