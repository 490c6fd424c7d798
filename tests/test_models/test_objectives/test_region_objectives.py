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
from mmdet_clim.models.losses.metrics import recall_at_1
from mmdet_clim.models.objectives import (
    RegionCaptionObjective,
    RegionPseudoLabelObjective,
    Regions,
    RegionTagObjective,
    TilesAlone,
)
from mmdet_clim.models.objectives.region_caption import match
from mmdet_clim.models.region_readers import ReadingStage
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


def proposals_of(*boxes):
    """Boxes, best score first, scores from 0.9 downwards."""
    return InstanceData(
        bboxes=torch.tensor(boxes).view(-1, 4),
        scores=.9 - .01 * torch.arange(len(boxes)))


def sample(objective, *mosaics, proposals=None):
    context = TilesAlone(list(mosaics), proposals)
    return objective.sample(context.tiles, context.stages[0])


def compare(objective, embeddings, mosaics, text_encoder, regions=None):
    context = TilesAlone(list(mosaics), None, text_encoder)
    if regions is None:
        regions = objective.sample(context.tiles, context.stages[0])
    return objective.compare(embeddings, regions, context, True)


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
    single = mosaic((1, 1), captions=[['three']], tags=[[]], keys=[8])
    regions = sample(caption_objective(), mosaic(), single)
    # A grid of 1x2 has one rectangle of two tiles, one of 1x1 has none.
    assert regions.rois.tolist() == [[0, 0, 0, 10, 10], [0, 10, 0, 20, 10],
                                     [0, 0, 0, 20, 10], [1, 0, 0, 10, 10]]
    assert regions.members.int().tolist() == [[1, 0], [0, 1], [1, 1], [1, 0]]
    assert regions.image.tolist() == [0, 0, 0, 1]
    assert regions.composed.tolist() == [[0, 0, 20, 10]]
    assert len(regions) == 4


def test_caption_loss_equals_the_plain_formula(text_encoder):
    objective = caption_objective()
    # Image 8 stands in both mosaics.
    mosaics = [
        mosaic(),
        mosaic((1, 1), captions=[['three']], tags=[[]], keys=[8])
    ]
    torch.manual_seed(1)
    embeddings = torch.randn(4, 6)
    out = compare(objective, embeddings, mosaics, text_encoder)
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
    embeddings = torch.randn(3, 6)
    torch.testing.assert_close(
        compare(fixed, embeddings, [mosaic()], text_encoder)['loss'] * 4,
        compare(average, embeddings, [mosaic()], text_encoder)['loss'] * 3)


def test_queue_adds_past_captions_and_survives_a_checkpoint(text_encoder):
    queue = dict(type='mmdet_clim.FeatureQueue', size=3, dim=6)
    objective = caption_objective(queue=queue)
    embeddings = torch.randn(3, 6)
    args = embeddings, [mosaic()], text_encoder
    first = compare(objective, *args)['loss']
    assert objective.queue.ids.tolist() == [7, 8]
    resumed = caption_objective(queue=queue)
    resumed.load_state_dict(objective.state_dict())
    second = compare(objective, *args)['loss']
    assert not torch.isclose(first, second)
    torch.testing.assert_close(compare(resumed, *args)['loss'], second)
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
        queue=dict(type='mmdet_clim.FeatureQueue', size=9, dim=6))
    embeddings = torch.randn(1, 6)
    compare(objective, embeddings, packed[:1], text_encoder)
    loss = compare(objective, embeddings, packed[1:2], text_encoder)['loss']
    # 'three' is the region's own text and 'one', in the queue, is not.
    texts = text_encoder(['three', 'one'])
    logits = 10 * F.normalize(embeddings, dim=1) @ texts.T - 4
    torch.testing.assert_close(
        loss,
        F.binary_cross_entropy_with_logits(
            logits, torch.tensor([[1., 0.]]), reduction='sum'))
    # Both tiles are image 0 of the first source, which the queue knows.
    context = TilesAlone(packed[2:])
    regions = objective.sample(context.tiles, context.stages[0])
    targets = match(regions, context.tiles, objective.queue.ids)
    assert targets.tolist() == [[True, False]] * 2


def test_a_caption_embedding_that_is_not_finite_is_refused(text_encoder):
    text_encoder.tower.weight.data[text_encoder.names.index('two')] = torch.nan
    for queue in (None, dict(type='mmdet_clim.FeatureQueue', size=9, dim=6)):
        objective = caption_objective(queue=queue)
        with pytest.raises(ValueError, match=r"finite.*rank for \['two'\]"):
            compare(objective, torch.randn(3, 6), [mosaic()], text_encoder)
    assert len(objective.queue) == 0


def test_a_proposal_beside_all_tiles_has_no_negative_size():
    # Below the tiles, where the mosaic is padded, and over the lower edge.
    found = proposals_of([1., 20., 9., 30.], [2., 8., 6., 14.])
    stage, = TilesAlone([mosaic()], [found]).stages
    boxes = stage.tile_proposals().boxes[0]
    assert boxes.tolist() == [[1, 20, 9, 20], [2, 8, 6, 10]]
    assert not stage.tile_proposals().owns[0, 0].any()


def test_largest_likely_proposal_of_each_tile():
    found = proposals_of(
        [1., 1., 3., 3.],  # tile 0, best score, small
        [6., 0., 14., 4.],  # half in each: the first tile, clamped
        [0., 0., 10., 10.],  # third of tile 0: past max_proposals
    )
    single = mosaic((1, 1), captions=[['three']], tags=[[]], keys=[8])
    context = TilesAlone([mosaic(), single],
                         [found, proposals_of([2., 2., 5., 9.])])
    stage, = context.stages
    best = stage.largest_in_tiles(max_proposals=2)
    assert best[0].tolist() == [
        [6, 0, 10, 4],  # largest of the two that count
        [10, 0, 20, 10],  # none: the tile itself
    ]
    assert best[1, 0].tolist() == [2, 2, 5, 9]
    assert stage.largest_in_tiles()[0, 0].tolist() == [0, 0, 10, 10]
    # Less than min_overlap in any tile: a proposal over the padding.
    outside = proposals_of([8., 9., 18., 30.])
    for proposals in ([outside], None):
        context = TilesAlone([mosaic()], proposals)
        assert torch.equal(context.stages[0].largest_in_tiles(),
                           context.tiles.boxes)


def test_a_tile_has_what_lies_in_it_by_more_than_the_least_share():
    found = proposals_of([0., 0., 10., 20.], [12., 0., 18., 9.])
    owns = TilesAlone([mosaic()], [found]).stages[0].tile_proposals
    assert owns(.49).owns[0].int().tolist() == [[1, 0], [0, 1]]
    assert owns(.5).owns[0].int().tolist() == [[0, 0], [0, 1]]
    assert owns(.5).boxes[0].tolist() == [[0, 0, 10, 10], [12, 0, 18, 9]]


@pytest.mark.parametrize('objective', ['tag', 'pseudo'])
def test_settings_of_proposals_reach_the_tiles(objective):
    """``min_overlap`` and ``max_proposals`` of the objective itself."""
    make = dict(tag=tag_objective, pseudo=pseudo_label_objective)[objective]
    # In tile 0: small, larger and mostly outside, largest.
    found = proposals_of([1., 1., 3., 3.], [0., 0., 10., 20.],
                         [0., 0., 9., 9.])
    expected = {
        (.3, 1): [[1, 1, 3, 3]],
        (.3, 2): [[1, 1, 3, 3], [0, 0, 10, 10]],
        (.6, 2): [[1, 1, 3, 3], [0, 0, 9, 9]],
    }
    for (min_overlap, max_proposals), boxes in expected.items():
        regions = sample(
            make(min_overlap=min_overlap, max_proposals=max_proposals),
            mosaic(tags=[[0], []]),
            proposals=[found])
        if objective == 'tag':
            area = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]
            largest = boxes[area.index(max(area))]
            assert regions.bboxes[0].tolist() == largest
        else:
            assert regions.bboxes.tolist() == boxes


@pytest.mark.parametrize('make', [caption_objective, tag_objective])
def test_regions_are_tiles_or_proposals(make):
    found = [proposals_of([1., 1., 3., 3.], [12., 2., 18., 8.])]
    of_tiles = make(regions='tiles', num_compositions=1)
    assert sample(
        of_tiles, mosaic(),
        proposals=found).bboxes.tolist() == [[0, 0, 10, 10], [10, 0, 20, 10],
                                             [0, 0, 20, 10]]
    of_proposals = make(regions='proposals', num_compositions=1)
    assert sample(
        of_proposals, mosaic(),
        proposals=found).bboxes.tolist() == [[1, 1, 3, 3], [12, 2, 18, 8],
                                             [1, 1, 18, 8]]
    with pytest.raises(ValueError, match="regions.*'boxes'"):
        make(regions='boxes')


def test_tags_of_compositions_are_unions(text_encoder):
    objective = tag_objective()
    tagged = mosaic(tags=[[0, 2], [1]])
    tiles = TilesAlone([tagged]).tiles
    targets = tiles.tag_targets(sample(objective, tagged), len(CLASSES))
    assert targets.int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 1, 1]]
    embeddings = torch.randn(3, 6)
    out = compare(objective, embeddings, [tagged], text_encoder)
    logits = 10 * F.normalize(embeddings, dim=1) @ text_encoder(CLASSES).T - 4
    loss = F.binary_cross_entropy_with_logits(
        logits, targets.float(), reduction='none')
    torch.testing.assert_close(out['loss'], loss.sum(1).mean())


def test_regions_without_tags_are_left_out(text_encoder):
    objective = tag_objective()
    regions = sample(objective, mosaic(tags=[[], [1]]))
    # The untagged tile is out; the pair holds the tag of its other tile.
    assert regions.members.tolist() == [[False, True], [True, True]]
    empty = mosaic(tags=[[], []])
    assert len(sample(objective, empty)) == 0
    embeddings = torch.randn(0, 6, requires_grad=True)
    out = compare(objective, embeddings, [empty], text_encoder)
    assert out['loss'].item() == 0
    out['loss'].backward()
    assert embeddings.grad is not None


class ReadByTable(TilesAlone):
    """Regions are read by a table from boxes to embeddings, by way of words.

    As with BARON, words (R, 3, D) become vectors in the space of texts.
    """

    def __init__(self, table, *args):
        super().__init__(*args)
        self.table = {box: value for box, value in table}

    @property
    def readings(self):

        def read(rois):
            return torch.stack([self.table[tuple(r[1:].tolist())]
                                for r in rois]) if len(rois) else \
                torch.zeros(0, 6)

        return [
            ReadingStage(
                read=lambda rois: read(rois)[:, None].expand(-1, 3, -1),
                interpret=lambda words: words.mean(1))
        ]


def test_each_tag_has_the_proposal_that_reads_it_best(text_encoder):
    cat, dog, cow = text_encoder(CLASSES)
    # Three in the first tile, the last of them over its edge; one in none.
    a, b, c = (1., 1., 4., 4.), (2., 2., 9., 9.), (5., 0., 12., 6.)
    inside = (5., 0., 10., 6.)
    proposals = InstanceData(
        bboxes=torch.tensor([(0., 0., 40., 40.), a, b, c]),
        scores=torch.tensor([.95, .9, .5, .4]))
    dog_alone = dog - dog @ cat * cat
    table = [((0., 0., 10., 10.), cat), (a, dog_alone), (b, cat),
             (inside, cow)]
    context = ReadByTable(table, [mosaic(tags=[(1, 0), (2, )])], [proposals],
                          text_encoder)
    objective = tag_objective(regions='best', num_compositions=0)
    regions = objective.sample(context.tiles, context.stages[0])
    # Tags in the order of classes; the second tile has no proposal.
    assert regions.bboxes.tolist() == [list(b), list(a), [10, 0, 20, 10]]
    assert regions.tags.tolist() == [0, 1, 2]
    assert regions.members.tolist() == [[1, 0], [1, 0], [0, 1]]

    embeddings = torch.randn(3, 6)
    out = objective.compare(embeddings, regions, context, True)
    logits = 10 * F.normalize(
        embeddings, dim=1) @ torch.stack([cat, dog, cow]).T - 4
    loss = F.binary_cross_entropy_with_logits(
        logits, torch.eye(3), reduction='none')
    # Cat and dog share a tile.
    counts = torch.tensor([[1., 0, 1], [0, 1, 1], [1, 1, 1]])
    torch.testing.assert_close(out['loss'], (loss * counts).sum() / 3)


@pytest.mark.parametrize('scores, chosen', [((.9, .01), 0), ((.9, .1), 1)])
def test_the_score_of_a_proposal_counts_with_its_root(text_encoder, scores,
                                                      chosen):
    cat, dog = text_encoder(['cat', 'dog'])
    across = F.normalize(dog - dog @ cat * cat, dim=0)
    # Cosines of 0.2 and 0.6, so logits of -2 and 2: 0.119 and 0.881. Times
    # the root of the score 0.113 and 0.088, or 0.113 and 0.279.
    vectors = [c * cat + (1 - c * c)**.5 * across for c in (.2, .6)]
    boxes = [(1., 1., 4., 4.), (2., 2., 9., 9.)]
    proposals = InstanceData(
        bboxes=torch.tensor(boxes), scores=torch.tensor(scores))
    context = ReadByTable(
        list(zip(boxes, vectors)), [mosaic((1, 1), [['one']], [[0]], [1])],
        [proposals], text_encoder)
    objective = tag_objective(regions='best', num_compositions=0)
    regions = objective.sample(context.tiles, context.stages[0])
    assert regions.bboxes.tolist() == [list(boxes[chosen])]


@pytest.mark.parametrize('boxes', [(), ((1., 1., 4., 4.), )])
@pytest.mark.parametrize('tags', [((), ()), ((0, ), ())])
def test_best_proposals_of_few_tags_and_boxes(text_encoder, boxes, tags):
    read = []
    table = [(box, torch.ones(6)) for box in boxes]
    context = ReadByTable(table, [mosaic(tags=tags)], [proposals_of(*boxes)],
                          text_encoder)
    objective = tag_objective(regions='best', num_compositions=0)
    stage = context.stages[0]
    stage.read_as_text = lambda rois: read.append(len(
        rois)) or context.readings[0].read_as_text(rois)
    regions = objective.sample(context.tiles, stage)
    # As many passes on a rank without tags, which others may wait for.
    assert read == [len(boxes)]
    expected = [list(boxes[0]) if boxes else [0, 0, 10, 10]] * len(tags[0])
    assert regions.bboxes.tolist() == expected
    embeddings = torch.zeros(len(regions), 6, requires_grad=True)
    out = objective.compare(embeddings, regions, context, True)
    assert out['loss'].requires_grad and (out['loss'] > 0) == bool(tags[0])


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
    found = proposals_of(
        [11., 1., 19., 9.],  # tile 1, which has no tags
        [1., 1., 3., 3.],
        [4., 4., 14., 9.],  # most of it in tile 0: clamped
        [0., 0., 9., 9.],  # third of its tile
    )
    regions = sample(objective, mosaic(tags=[[0, 2], []]), proposals=[found])
    assert regions.bboxes.tolist() == [[1, 1, 3, 3], [4, 4, 10, 9]]
    assert regions.members.tolist() == [[True, False]] * 2
    assert len(sample(objective, mosaic())) == 0


def test_pseudo_labels_are_the_nearest_tags(text_encoder):
    objective = pseudo_label_objective(min_similarity=0.5)
    cat, dog, cow = text_encoder(CLASSES)
    regions = Regions(
        torch.zeros(3, 5), torch.zeros(3, dtype=torch.long),
        torch.tensor([[True, False], [True, False], [False, True]]))
    embeddings = torch.stack([
        3 * cow + cat,  # the nearer of its two tags
        -cat - cow,  # far from every tag of its tile: left out
        dog + .1 * cat,
    ])
    embeddings.requires_grad_()
    out = compare(objective, embeddings, [mosaic(tags=[[0, 2], [1]])],
                  text_encoder, regions)
    assert out['labelled'].item() == pytest.approx(200 / 3)
    kept = F.normalize(embeddings[[0, 2]], dim=1)
    logits = 10 * kept @ text_encoder(CLASSES).T - 4
    loss = F.binary_cross_entropy_with_logits(
        logits, torch.tensor([[0., 0, 1], [0, 1, 0]]), reduction='none')
    torch.testing.assert_close(out['loss'], loss.sum(1).mean())
    out['loss'].backward()
    assert embeddings.grad[1].tolist() == [0] * 6
    assert embeddings.grad[[0, 2]].abs().sum(1).gt(0).all()


def test_a_label_is_as_near_as_its_cosine_says(text_encoder):
    """Whatever the norm of the embedding."""
    objective = pseudo_label_objective(min_similarity=0.8)
    cat, dog, _ = text_encoder(CLASSES)
    across = F.normalize(dog - (dog @ cat) * cat, dim=0)
    near, far = cat + .7 * across, cat + .8 * across  # cosines .82 and .78
    embeddings = torch.stack([.01 * near, 100 * far, 100 * near, .01 * far])
    candidates = torch.tensor([[True, False, False]]).expand(4, 3)
    found = objective.label(embeddings, text_encoder(CLASSES), candidates)
    assert found[:, 0].tolist() == [True, False, True, False]


def test_no_pseudo_labels_at_all(text_encoder):
    objective = pseudo_label_objective()
    embeddings = torch.randn(0, 6, requires_grad=True)
    out = compare(objective, embeddings, [mosaic()], text_encoder)
    assert out['loss'].item() == 0 and out['labelled'].item() == 0
    out['loss'].backward()
    assert embeddings.grad is not None


@pytest.mark.parametrize('kwargs', [
    dict(min_similarity=2),
    dict(min_similarity=-1.5),
    dict(max_proposals=0),
    dict(min_overlap=1),
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
    assert recall_at_1(regions[:1], texts, targets[:1]) == 100
    assert recall_at_1(regions, texts, torch.zeros(3, 3).bool()) == 0


def test_a_tile_without_a_caption(text_encoder):
    tiles = mosaic(captions=[['one'], []])
    with pytest.raises(ValueError, match='each tile, got none of 1 of 2'):
        compare(caption_objective(), torch.randn(3, 6), [tiles], text_encoder)


@pytest.mark.parametrize('kwargs, key', [
    (dict(num_compositions=-1), 'num_compositions'),
    (dict(avg_factor=0), 'avg_factor'),
])
def test_bad_arguments(kwargs, key):
    with pytest.raises(ValueError, match=key):
        RegionCaptionObjective(loss=BCE, **kwargs)


@pytest.mark.parametrize('kwargs', [
    dict(num_compositions=-1),
    dict(max_proposals=0),
    dict(min_overlap=-.1),
    dict(min_overlap='0.3'),
])
def test_bad_tag_arguments(kwargs):
    with pytest.raises(ValueError, match=f'{next(iter(kwargs))}: expected'):
        RegionTagObjective(loss=BCE, vocabulary=CLASSES, **kwargs)


@pytest.mark.parametrize('kwargs, message', [
    (dict(num_compositions=2), 'num_compositions=0'),
    (dict(num_compositions=0, refine_regions=True), 'refine_regions=False'),
    (dict(
        num_compositions=0,
        loss=dict(type='mmdet_clim.CLIMRegionLoss',
                  kind='infonce')), 'loss.kind'),
])
def test_what_the_best_regions_can_not_be(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RegionTagObjective(**dict(
            dict(loss=BCE, vocabulary=CLASSES, regions='best'), **kwargs))


@pytest.mark.parametrize('kind',
                         [RegionTagObjective, RegionPseudoLabelObjective])
def test_a_softmax_over_one_class_would_teach_nothing(kind):
    loss = dict(type='mmdet_clim.CLIMRegionLoss', kind='softmax')
    with pytest.raises(ValueError, match='vocabulary of one class'):
        kind(loss=loss, vocabulary=['cat'])
    # Nor is 'cat' one of two where both are phrases of one class.
    with pytest.raises(ValueError, match='vocabulary of one class'):
        kind(loss=loss, vocabulary=['cat | dog'])
    kind(loss=loss, vocabulary=['cat', 'dog'])
    kind(loss=BCE, vocabulary=['cat'])


def test_bad_vocabulary():
    with pytest.raises(ValueError, match='twice'):
        RegionTagObjective(loss=BCE, vocabulary=['cat', 'cat'])
