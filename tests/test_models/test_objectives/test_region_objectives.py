# Licensed under the Apache License, Version 2.0.
import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_clim.datasets import ImageTextDataset
from mmdet_clim.models.objectives import (
    RegionCaptionObjective,
    RegionTagObjective,
    SampledRegions,
    largest_in_tiles,
    recall_at_1,
)
from mmdet_clim.models.text_encoders import PrecomputedTextEncoder
from mmdet_clim.registry import MODELS

BCE = dict(type='mmdet_clim.CLIMRegionLoss', temperature=10.0, bias=-4.0)
CLASSES = ['cat', 'dog', 'cow']


@pytest.fixture
def text_encoder(tmp_path):
    texts = [*CLASSES, 'one', 'two', 'three', 'four']
    torch.manual_seed(0)
    file = tmp_path / 'texts.pth'
    torch.save(dict(names=texts, vectors=torch.randn(len(texts), 6)), file)
    return PrecomputedTextEncoder(str(file))


def mosaic(
        grid=(1, 2),
        captions=(('one', ), ('two', )),
        tags=((0, ), (1, )),
        keys=(7, 8)):
    rows, cols = grid
    boxes = torch.tensor([[10. * c, 10. * r, 10. * c + 10, 10. * r + 10]
                          for r in range(rows) for c in range(cols)])
    sample = DetDataSample(
        metainfo=dict(
            captions=[list(c) for c in captions],
            tags=[list(t) for t in tags],
            image_keys=list(keys),
            mosaic_grid=grid))
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
    return sample


def no_proposals():
    return InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0))


def caption_objective(**kwargs):
    return MODELS.build(
        dict(type='mmdet_clim.RegionCaptionObjective', loss=BCE, **kwargs))


def tag_objective(**kwargs):
    return MODELS.build(
        dict(
            type='mmdet_clim.RegionTagObjective',
            vocabulary=CLASSES,
            templates=('{}', ),
            loss=dict(BCE, positive_reduction='sum'),
            **kwargs))


def test_captions_sample_tiles_then_compositions():
    samples = caption_objective().sample(no_proposals(), mosaic())
    # A grid of 1x2 has one rectangle of two tiles.
    assert samples.bboxes.tolist() == [[0, 0, 10, 10], [10, 0, 20, 10],
                                       [0, 0, 20, 10]]
    assert samples.members.tolist() == [[True, False], [False, True],
                                        [True, True]]


def test_caption_loss_equals_the_plain_formula(text_encoder):
    objective = caption_objective()
    samples = [
        objective.sample(no_proposals(), mosaic()),
        # Image 8 stands in both mosaics.
        objective.sample(
            no_proposals(),
            mosaic((1, 1), captions=[['three']], tags=[[]], keys=[8]))
    ]
    torch.manual_seed(1)
    embeddings = torch.randn(4, 6)
    out = objective.loss(embeddings, samples, text_encoder)
    # Texts: one (7), two (8), three (8).
    targets = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 1, 1]])
    texts = text_encoder(['one', 'two', 'three'])
    logits = 10 * F.normalize(embeddings, dim=1) @ texts.T - 4
    loss = F.binary_cross_entropy_with_logits(
        logits, targets.float(), reduction='none')
    weights = torch.where(targets > 0, 1 / targets.sum(1, keepdim=True), 1.)
    torch.testing.assert_close(out['loss'], (loss * weights).sum(1).mean())


def test_fixed_divisor(text_encoder):
    average, fixed = caption_objective(), caption_objective(avg_factor=4)
    sample = [average.sample(no_proposals(), mosaic())]
    embeddings = torch.randn(3, 6)
    torch.testing.assert_close(
        fixed.loss(embeddings, sample, text_encoder)['loss'] * 4,
        average.loss(embeddings, sample, text_encoder)['loss'] * 3)


def test_queue_adds_past_captions_and_survives_a_checkpoint(text_encoder):
    queue = dict(type='mmdet_clim.TextQueue', size=3, dim=6)
    objective = caption_objective(queue=queue)
    sample = [objective.sample(no_proposals(), mosaic())]
    embeddings = torch.randn(3, 6)
    first = objective.loss(embeddings, sample, text_encoder)['loss']
    assert objective.queue.ids.tolist() == [7, 8]
    resumed = caption_objective(queue=queue)
    resumed.load_state_dict(objective.state_dict())
    second = objective.loss(embeddings, sample, text_encoder)['loss']
    assert not torch.isclose(first, second)
    torch.testing.assert_close(
        resumed.loss(embeddings, sample, text_encoder)['loss'], second)
    assert objective.queue.ids.tolist() == [8, 7, 8]


def source(folder, captions, branch, *transforms):
    """Images with the ids 0, 1, ... and one caption each."""
    folder.mkdir(exist_ok=True)
    lines = []
    for number, caption in enumerate(captions):
        cv2.imwrite(str(folder / f'{number}.png'), np.zeros((10, 10, 3)))
        lines.append(dict(file_name=f'{number}.png', caption=caption))
    (folder / 'captions.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    return ImageTextDataset(
        'captions.jsonl',
        data_root=str(folder),
        pipeline=[
            dict(type='mmdet_clim.LoadImageText'), *transforms,
            dict(type='mmdet_clim.PackRegionTextInputs', branch=branch)
        ])


def test_sources_with_the_same_ids_do_not_share_captions(
        tmp_path, text_encoder):
    mine = source(tmp_path / 'mine', ['one', 'two'], 'captions')
    other = source(tmp_path / 'other', ['three', 'four'], 'captions')
    tiled = source(
        tmp_path / 'mine', ['one', 'two'], 'mosaic',
        dict(
            type='mmdet_clim.MosaicCLIM',
            grids=[(1, 2)],
            out_size=(20, 10),
            cache_size=1))
    packed = [d[0]['data_samples'] for d in (mine, other, tiled)]
    assert [p.img_id for p in packed] == [0, 0, 0]
    objective = caption_objective(
        num_compositions=0,
        queue=dict(type='mmdet_clim.TextQueue', size=9, dim=6))
    samples = [objective.sample(no_proposals(), p) for p in packed]
    embeddings = torch.randn(1, 6)
    objective.loss(embeddings, samples[:1], text_encoder)
    loss = objective.loss(embeddings, samples[1:2], text_encoder)['loss']
    # 'three' is the region's own text and 'one', in the queue, is not.
    texts = text_encoder(['three', 'one'])
    logits = 10 * F.normalize(embeddings, dim=1) @ texts.T - 4
    torch.testing.assert_close(
        loss,
        F.binary_cross_entropy_with_logits(
            logits, torch.tensor([[1., 0.]]), reduction='sum'))
    # Both tiles are image 0 of the first source, which the queue knows.
    targets = objective.match(samples[2:], objective.queue.ids)
    assert targets.tolist() == [[True, False]] * 2


def test_a_caption_embedding_that_is_not_finite_is_refused(text_encoder):
    text_encoder.tower.weight.data[text_encoder.names.index('two')] = torch.nan
    for queue in (None, dict(type='mmdet_clim.TextQueue', size=9, dim=6)):
        objective = caption_objective(queue=queue)
        sample = [objective.sample(no_proposals(), mosaic())]
        with pytest.raises(ValueError, match=r"finite.*rank for \['two'\]"):
            objective.loss(torch.randn(3, 6), sample, text_encoder)
    assert len(objective.queue) == 0


def test_largest_likely_proposal_of_each_tile():
    tiles = mosaic().gt_instances.bboxes
    proposals = torch.tensor([
        [1., 1., 3., 3.],  # tile 0, best score, small
        [6., 0., 14., 4.],  # half in each: the first tile, clamped
        [0., 0., 10., 10.],  # third of tile 0: past max_proposals
    ])
    best = largest_in_tiles(proposals, tiles, max_proposals=2)
    assert best.tolist() == [
        [6, 0, 10, 4],  # largest of the two that count
        [10, 0, 20, 10],  # none: the tile itself
    ]
    # Less than min_overlap in any tile: a proposal over the padding.
    outside = torch.tensor([[8., 9., 18., 30.]])
    assert torch.equal(largest_in_tiles(outside, tiles), tiles)
    assert torch.equal(largest_in_tiles(torch.zeros(0, 4), tiles), tiles)


@pytest.mark.parametrize('make', [caption_objective, tag_objective])
def test_regions_are_tiles_or_proposals(make):
    found = InstanceData(
        bboxes=torch.tensor([[1., 1., 3., 3.], [12., 2., 18., 8.]]),
        scores=torch.tensor([.9, .8]))
    sample = mosaic()
    of_tiles = make(regions='tiles', num_compositions=1)
    assert not of_tiles.needs_proposals
    assert of_tiles.sample(found, sample).bboxes.tolist() == [[0, 0, 10, 10],
                                                              [10, 0, 20, 10],
                                                              [0, 0, 20, 10]]
    of_proposals = make(regions='proposals', num_compositions=1)
    assert of_proposals.needs_proposals
    assert of_proposals.sample(found,
                               sample).bboxes.tolist() == [[1, 1, 3, 3],
                                                           [12, 2, 18, 8],
                                                           [1, 1, 18, 8]]
    with pytest.raises(ValueError, match="regions.*'boxes'"):
        make(regions='boxes')


def test_tags_of_compositions_are_unions(text_encoder):
    objective = tag_objective()
    sample = objective.sample(no_proposals(), mosaic(tags=[[0, 2], [1]]))
    targets = sample.tag_targets(len(CLASSES))
    assert targets.int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 1, 1]]
    embeddings = torch.randn(3, 6)
    out = objective.loss(embeddings, [sample], text_encoder)
    logits = 10 * F.normalize(embeddings, dim=1) @ text_encoder(CLASSES).T - 4
    loss = F.binary_cross_entropy_with_logits(
        logits, targets.float(), reduction='none')
    torch.testing.assert_close(out['loss'], loss.sum(1).mean())


def test_regions_without_tags_are_left_out(text_encoder):
    objective = tag_objective()
    sample = objective.sample(no_proposals(), mosaic(tags=[[], [1]]))
    # The untagged tile is out; the pair holds the tag of its other tile.
    assert sample.members.tolist() == [[False, True], [True, True]]
    empty = objective.sample(no_proposals(), mosaic(tags=[[], []]))
    assert len(empty) == 0
    embeddings = torch.randn(0, 6, requires_grad=True)
    out = objective.loss(embeddings, [empty], text_encoder)
    assert out['loss'].item() == 0
    out['loss'].backward()
    assert embeddings.grad is not None


def pseudo_label_objective(**kwargs):
    return MODELS.build(
        dict(
            type='mmdet_clim.RegionPseudoLabelObjective',
            vocabulary=CLASSES,
            templates=('{}', ),
            loss=dict(BCE, positive_reduction='sum'),
            **kwargs))


def test_pseudo_labels_go_to_the_best_proposals_of_tagged_tiles():
    objective = pseudo_label_objective(max_proposals=2)
    found = InstanceData(
        bboxes=torch.tensor([
            [11., 1., 19., 9.],  # tile 1, which has no tags
            [1., 1., 3., 3.],
            [4., 4., 14., 9.],  # most of it in tile 0: clamped
            [0., 0., 9., 9.],  # third of its tile
        ]),
        scores=torch.tensor([.9, .8, .7, .6]))
    sample = objective.sample(found, mosaic(tags=[[0, 2], []]))
    assert sample.bboxes.tolist() == [[1, 1, 3, 3], [4, 4, 10, 9]]
    assert sample.members.tolist() == [[True, False]] * 2
    assert len(objective.sample(no_proposals(), mosaic())) == 0


def test_pseudo_labels_are_the_nearest_tags(text_encoder):
    objective = pseudo_label_objective(min_similarity=0.5)
    cat, dog, cow = text_encoder(CLASSES)
    sample = SampledRegions(
        torch.zeros(3, 4),
        torch.tensor([[True, False], [True, False], [False, True]]),
        mosaic(tags=[[0, 2], [1]]))
    embeddings = torch.stack([
        3 * cow + cat,  # the nearer of its two tags
        -cat - cow,  # far from every tag of its tile: left out
        dog + .1 * cat,
    ])
    embeddings.requires_grad_()
    out = objective.loss(embeddings, [sample], text_encoder)
    assert out['labelled'].item() == pytest.approx(200 / 3)
    kept = F.normalize(embeddings[[0, 2]], dim=1)
    logits = 10 * kept @ text_encoder(CLASSES).T - 4
    loss = F.binary_cross_entropy_with_logits(
        logits, torch.tensor([[0., 0, 1], [0, 1, 0]]), reduction='none')
    torch.testing.assert_close(out['loss'], loss.sum(1).mean())
    out['loss'].backward()
    assert embeddings.grad[1].tolist() == [0] * 6
    assert embeddings.grad[[0, 2]].abs().sum(1).gt(0).all()


def test_no_pseudo_labels_at_all(text_encoder):
    objective = pseudo_label_objective()
    embeddings = torch.randn(0, 6, requires_grad=True)
    empty = objective.sample(no_proposals(), mosaic())
    out = objective.loss(embeddings, [empty], text_encoder)
    assert out['loss'].item() == 0 and out['labelled'].item() == 0
    out['loss'].backward()
    assert embeddings.grad is not None


@pytest.mark.parametrize('kwargs', [
    dict(min_similarity=2),
    dict(max_proposals=0),
])
def test_bad_pseudo_label_arguments(kwargs):
    with pytest.raises(ValueError, match=f'{next(iter(kwargs))}: expected'):
        pseudo_label_objective(**kwargs)


def test_recall():
    texts = torch.eye(3)
    regions = torch.tensor([[2., 0, 0], [0, 3., 0], [0, 0, 1.]])
    targets = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 0, 0]]).bool()
    # Two regions have texts, one of them is nearest to its own.
    assert recall_at_1(regions, texts, targets) == 50
    assert recall_at_1(regions, texts, torch.zeros(3, 3).bool()) == 0


@pytest.mark.parametrize('kwargs, key', [
    (dict(num_compositions=-1), 'num_compositions'),
    (dict(avg_factor=0), 'avg_factor'),
])
def test_bad_arguments(kwargs, key):
    with pytest.raises(ValueError, match=key):
        RegionCaptionObjective(loss=BCE, **kwargs)


def test_bad_vocabulary():
    with pytest.raises(ValueError, match='twice'):
        RegionTagObjective(loss=BCE, vocabulary=['cat', 'cat'])


def test_sampled_regions_know_their_number():
    assert len(SampledRegions(torch.zeros(2, 4), torch.ones(2, 1), None)) == 2
