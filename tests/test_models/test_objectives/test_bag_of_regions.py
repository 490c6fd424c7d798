# Licensed under the Apache License, Version 2.0.
"""Bags of regions against plain code that takes one bag at a time."""
import math

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_clim.models.losses import FeatureQueue
from mmdet_clim.models.objectives import BagReader, TilesAlone
from mmdet_clim.models.objectives.bag_of_regions.contrast import BagContrast
from mmdet_clim.registry import MODELS

INFONCE = dict(
    type='mmdet_clim.CLIMRegionLoss', kind='infonce', temperature=30.0)
WIDTH = 16  # of the words of the tiny CLIP
NUM_WORDS = 2


@pytest.fixture
def text_encoder(tiny_clip_cfg):
    return MODELS.build(tiny_clip_cfg)


def mosaic(grid=(1, 2), keys=(7, 8), captions=None, size=40.):
    rows, cols = grid
    boxes = torch.tensor(
        [[size * c, size * r, size * c + size, size * r + size]
         for r in range(rows) for c in range(cols)])
    captions = captions or [['a cat', 'a dog'], ['two birds']]
    sample = DetDataSample(
        metainfo=dict(
            captions=[list(c) for c in captions],
            image_keys=list(keys),
            mosaic_grid=grid))
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
    return sample


def proposals(*boxes):
    """Boxes, best score first, scores from 0.99 downwards."""
    return InstanceData(
        bboxes=torch.tensor(boxes).view(-1, 4),
        scores=.99 - .01 * torch.arange(len(boxes)))


TWO = ([2., 2., 22., 22.], [45., 5., 65., 30.])


def objective(bags=None, **kwargs):
    bags = dict(word_dim=WIDTH, num_words=NUM_WORDS, **(bags or {}))
    return MODELS.build(
        dict(
            type='mmdet_clim.BagOfRegionsObjective',
            loss=INFONCE,
            bags=bags,
            **kwargs))


def branch(mosaics, found=None, text_encoder=None):
    return TilesAlone(mosaics, found, text_encoder)


def sample(objective, *mosaics, found=None):
    context = branch(list(mosaics), found)
    return objective.sample(context.tiles, context.stages[0])


def compare(objective, embeddings, context, is_last=True):
    regions = objective.sample(context.tiles, context.stages[0])
    return regions, objective.compare(embeddings, regions, context, is_last)


def plain_position(box, frame, layers):
    """REFERENCE.md, section 3, one number after another: (words, WIDTH).

    A box is a number of float32, and the largest angle 1800 times that.
    """
    width, height = frame[2] - frame[0], frame[3] - frame[1]
    sines = []
    for number in [
        ((box[0] + box[2]) / 2 - frame[0]) / width,
        ((box[1] + box[3]) / 2 - frame[1]) / height,
        (box[2] - box[0]) / width,
        (box[3] - box[1]) / height,
    ]:
        for i in range(0, 128, 2):
            angle = 2 * math.pi * number * 1.2**(i / 2 - 32)
            sines += [math.sin(angle), math.cos(angle)]
    first, norm, last = layers
    hidden = first.weight @ torch.tensor(sines) + first.bias
    hidden = (hidden - hidden.mean()) / torch.sqrt(
        hidden.var(unbiased=False) + 1e-5) * norm.weight + norm.bias
    return (last.weight @ hidden + last.bias).view(-1, WIDTH)


def plain_bags(embeddings, regions, text_encoder, reader):
    """All words of every bag, in the order of the regions."""
    found = []
    for bag, frame in zip(regions.bags, regions.bag_rois[:, 1:].tolist()):
        words = []
        for region in bag.nonzero().flatten().tolist():
            words.append(embeddings[region].view(-1, WIDTH) +
                         plain_position(regions.bboxes[region].tolist(), frame,
                                        reader.position.layers))
        words = torch.cat(words)
        found.append(
            text_encoder.encode_words(words[None],
                                      torch.tensor([len(words)]))[0])
    return torch.stack(found)


def plain_loss(bags, bag_images, texts, text_images, past=None):
    """Cross-entropy of all bags over all texts and the other way round.

    Those of a queue count in both means, also where nothing is theirs.
    """
    bags, bag_images = list(bags), list(bag_images)
    texts, text_images = list(texts), list(text_images)
    if past is not None:
        bags += list(past[0])
        bag_images += past[1]
        texts += list(past[2])
        text_images += past[3]
    rows = columns = 0
    for bag, images in zip(bags, bag_images):
        logs = torch.stack([30 * bag @ text for text in texts]).log_softmax(0)
        own = [n for n, i in enumerate(text_images) if i in images]
        rows -= sum(logs[n] for n in own) / max(len(own), 1)
    for text, image in zip(texts, text_images):
        logs = torch.stack([30 * bag @ text for bag in bags]).log_softmax(0)
        own = [n for n, i in enumerate(bag_images) if image in i]
        columns -= sum(logs[n] for n in own) / max(len(own), 1)
    return (rows / len(bags) + columns / len(texts)) / 2


# One order, and words that are dropped never: nothing is random but the
# order, which the next test looks at.
ORDERED = dict(num_orders=1, drop_prob=0.)


@pytest.fixture
def in_order(monkeypatch):
    """Regions stand in a bag in their own order."""
    monkeypatch.setattr(
        torch, 'rand', lambda *size, **_: torch.arange(math.prod(size)).
        reshape(size) / math.prod(size))


def test_bags_of_tiles_and_of_their_union():
    samples = sample(objective(), mosaic(), found=[proposals(*TWO)])
    tiles = [[0, 0, 40, 40], [40, 0, 80, 40]]
    assert samples.bboxes[:2].tolist() == tiles
    assert samples.is_core.tolist() == [True, True, False, False]
    # The two proposals, in any order, with their tiles.
    order = samples.bboxes[2:, 0].argsort() + 2
    assert samples.bboxes[order].tolist() == [list(box) for box in TWO]
    assert samples.members[order].tolist() == [[True, False], [False, True]]
    columns = [0, 1, *order.tolist()]
    assert samples.bags[:, columns].int().tolist() == [[1, 0, 1, 0],
                                                       [0, 1, 0, 1],
                                                       [1, 1, 1, 1]]
    # Positions are relative to the tile, or to the union.
    assert samples.bag_rois.tolist() == [[0, *box]
                                         for box in (*tiles, [0, 0, 80, 40])]
    assert samples.composed.tolist() == [[0, 0, 80, 40]]
    assert samples.bag_keys.tolist() == [[7, 7], [8, 8], [7, 8]]


def test_bags_of_tile_boxes_alone():
    of_tiles = objective(regions='tiles')
    samples = sample(of_tiles, mosaic(), found=[proposals(*TWO)])
    assert len(samples) == 2
    assert samples.bags.int().tolist() == [[1, 0], [0, 1], [1, 1]]


def test_value_and_gradients_equal_one_bag_at_a_time(text_encoder, in_order):
    bags = objective(bags=ORDERED)
    # Image 8 stands in both mosaics; the second has no proposals.
    context = branch([
        mosaic(),
        mosaic((1, 1), keys=[8], captions=[['two dogs', 'a word']])
    ], [proposals(*TWO), proposals()], text_encoder)
    torch.manual_seed(0)
    embeddings = torch.randn(5, NUM_WORDS * WIDTH, requires_grad=True)
    samples, found = compare(bags, embeddings, context)
    found = found['loss']
    texts = text_encoder(['a cat', 'a dog', 'two birds', 'two dogs', 'a word'])
    expected = plain_loss(
        plain_bags(embeddings, samples, text_encoder, bags.reader),
        [{7}, {8}, {7, 8}, {8}], texts, [7, 7, 8, 8, 8])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    grads = [
        torch.autograd.grad(of, embeddings)[0] for of in (found, expected)
    ]
    assert grads[1].abs().max() > 1e-3
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-3)


def test_queues_on_both_sides(text_encoder, in_order):
    queue = dict(type='mmdet_clim.FeatureQueue', size=9, dim=12)
    bags = objective(bags=ORDERED, queue=queue)
    torch.manual_seed(0)
    old = torch.randn(4, NUM_WORDS * WIDTH)
    context = branch([mosaic()], [proposals(*TWO)], text_encoder)
    first, _ = compare(bags, old, context)
    past = plain_bags(old, first, text_encoder, bags.reader)[:2]
    # The composed bag belongs to two images and is not kept.
    assert bags.contrast.bag_queue.ids.tolist() == [7, 8]
    torch.testing.assert_close(
        bags.contrast.bag_queue.features, past, atol=1e-3, rtol=1e-3)
    assert bags.contrast.text_queue.ids.tolist() == [7, 7, 8]

    resumed = objective(bags=ORDERED, queue=queue)
    resumed.load_state_dict(bags.state_dict())
    context = branch([mosaic((1, 1), keys=[8], captions=[['two dogs']])], None,
                     text_encoder)
    second = bags.sample(context.tiles, context.stages[0])
    embeddings = torch.randn(1, NUM_WORDS * WIDTH, requires_grad=True)
    expected = plain_loss(
        plain_bags(embeddings, second, text_encoder, bags.reader), [{8}],
        text_encoder(['two dogs']), [8],
        (past, [{7}, {8}], text_encoder(['a cat', 'a dog', 'two birds'
                                         ]), [7, 7, 8]))
    wanted, = torch.autograd.grad(expected, embeddings)
    for of in (bags, resumed):
        _, found = compare(of, embeddings, context, is_last=False)
        torch.testing.assert_close(
            found['loss'], expected, atol=1e-3, rtol=1e-4)
        grad, = torch.autograd.grad(found['loss'], embeddings)
        torch.testing.assert_close(grad, wanted, atol=1e-4, rtol=1e-3)
        # Another stage of the step follows: nothing was remembered.
        assert len(of.contrast.bag_queue) == 2


def sentences(reader, samples, text_encoder):
    """The sentences that a reader writes, as lists of words.

    Every word is a number of its own: region, then place in the region.
    """
    count = len(samples)
    for parameter in reader.position.parameters():
        torch.nn.init.zeros_(parameter)
    numbers = torch.arange(count * reader.num_words).float() + 1
    embeddings = numbers[:, None].expand(-1, text_encoder.word_dim).reshape(
        count, -1)
    written = []

    class Recorder:
        word_dim = text_encoder.word_dim
        max_words = text_encoder.max_words

        def encode_words(self, words, lengths):
            for of_one, length in zip(words, lengths):
                written.append(of_one[:length, 0].round().int().tolist())
                assert (of_one[length:] == 0).all()
            return words[:, 0]

    _, bag = reader(embeddings, samples, Recorder())
    return written, bag.tolist()


def test_orders_of_a_bag(text_encoder):
    reader = BagReader(WIDTH, num_words=2, num_orders=4, drop_prob=0.)
    samples = sample(objective(), mosaic(), found=[proposals(*TWO)])
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        written, bag = sentences(reader, samples, text_encoder)
        # 2! orders of the bags of two regions, 4 of the bag of four.
        assert bag == [0, 0, 1, 1, 2, 2, 2, 2]
        assert len({tuple(words) for words in written}) == 8
        for words, number in zip(written, bag):
            regions = [(first - 1) // 2 for first in words[::2]]
            # The words of a region stay together and in their order.
            assert words == [2 * r + w for r in regions for w in (1, 2)]
            held = samples.bags[number].nonzero().flatten().tolist()
            assert sorted(regions) == held
            seen.add((number, *regions))
    assert {len(of) for of in seen} == {3, 5}
    # Both orders of each pair, and nearly all 24 of the four.
    assert sum(len(of) == 3 for of in seen) == 4
    assert sum(len(of) == 5 for of in seen) > 18


def test_orders_of_a_bag_of_three(text_encoder):
    """Four of the six, each as often as any other."""
    reader = BagReader(WIDTH, num_words=2, num_orders=4)
    torch.manual_seed(0)
    counts = {}
    for _ in range(100):
        sentence, entry, of = reader._order(torch.tensor([0, 0, 0, 1]))
        assert of.tolist() == [0, 0, 0, 0, 1]
        assert sentence.bincount().tolist() == [3, 3, 3, 3, 1]
        orders = [tuple(row) for row in entry[:12].view(4, 3).tolist()]
        assert len(set(orders)) == 4
        for order in orders:
            counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6 and min(counts.values()) > 45
    assert reader._order(torch.zeros(0, dtype=torch.long))[0].shape == (0, )


def test_a_bag_of_one_region_has_one_order(text_encoder):
    reader = BagReader(WIDTH, num_words=2, drop_prob=0.)
    samples = sample(objective(), mosaic((1, 1), keys=[1]))
    written, bag = sentences(reader, samples, text_encoder)
    assert (written, bag) == ([[1, 2]], [0])


@pytest.mark.parametrize('drop_prob, mean', [(0., 2.), (.5, 1.25), (1., 1.)])
def test_never_all_words_of_a_region_are_dropped(text_encoder, drop_prob,
                                                 mean):
    reader = BagReader(WIDTH, num_words=2, drop_prob=drop_prob)
    samples = sample(objective(), mosaic(), found=[proposals(*TWO)])
    torch.manual_seed(0)
    counts = []
    for _ in range(50):
        written, bag = sentences(reader, samples, text_encoder)
        for words, number in zip(written, bag):
            regions = [(word - 1) // 2 for word in words]
            held = samples.bags[number].nonzero().flatten().tolist()
            assert sorted(set(regions)) == held
            counts += [regions.count(r) for r in held]
    # Of two words with p = 1/2: both 1/4, one 1/2, none 1/4, which is one.
    assert torch.tensor(counts).float().mean().item() == pytest.approx(
        mean, abs=.1)


def test_a_bag_that_is_too_long_keeps_the_tiles(text_encoder):
    # Eight words hold four regions of two words; 2x2 tiles with one proposal
    # each are eight regions.
    boxes = [[5. + 40 * c, 5. + 40 * r, 25. + 40 * c, 25. + 40 * r]
             for r in range(2) for c in range(2)]
    samples = sample(
        objective(num_compositions=9),
        mosaic((2, 2), range(4), [['a cat']] * 4),
        found=[proposals(*boxes)])
    full = samples.bags.sum(1).argmax().item()
    assert samples.bags[full].all()
    reader = BagReader(WIDTH, num_words=2, drop_prob=0.)
    written, bag = sentences(reader, samples, text_encoder)
    of_full = [w for w, number in zip(written, bag) if number == full]
    assert len(of_full) == 4
    for words in of_full:
        assert sorted({(word - 1) // 2 for word in words}) == [0, 1, 2, 3]
    # Of three, two tiles and one of the two proposals.
    reader.max_regions = 3
    written, bag = sentences(reader, samples, text_encoder)
    pairs = (samples.bags.sum(1) == 4).nonzero().flatten().tolist()
    assert pairs
    for words, number in zip(written, bag):
        if number in pairs:
            regions = {(word - 1) // 2 for word in words}
            assert len(regions) == 3
            assert samples.is_core[list(regions)].sum() == 2


def test_at_most_so_many_captions(text_encoder):
    captions = [['a cat', 'a dog', 'one', 'two', 'a word', 'the photo']]
    queue = dict(type='mmdet_clim.FeatureQueue', size=99, dim=12)
    bags = objective(queue=queue, max_captions=5)
    context = branch([mosaic((1, 1), keys=[3], captions=captions)], None,
                     text_encoder)
    _, out = compare(bags, torch.randn(1, 32), context)
    # One image: every text is the bag's, and the loss is that of a tie.
    assert bags.contrast.text_queue.ids.tolist() == [3] * 5
    assert out['recall@1'] == 100 and out['loss'].isfinite()
    assert len(
        {tuple(row)
         for row in bags.contrast.text_queue.features.tolist()}) == 5
    every = objective(queue=queue)
    compare(every, torch.randn(1, 32), context)
    assert len(every.contrast.text_queue) == 6


def test_a_text_that_is_not_finite_is_refused_and_a_bag_left_out(text_encoder):
    queue = dict(type='mmdet_clim.FeatureQueue', size=9, dim=12)
    bags = objective(queue=queue, bags=dict(num_orders=1))
    context = branch([mosaic()], None, text_encoder)
    embeddings = torch.randn(2, 32)
    embeddings[0] = torch.nan
    compare(bags, embeddings, context)
    assert bags.contrast.bag_queue.ids.tolist() == [8]
    text_encoder._table[text_encoder._rows['a cat']] = torch.nan
    with pytest.raises(ValueError, match='finite'):
        compare(bags, torch.randn(2, 32), context)


def test_the_wrong_box_head_or_text_encoder(text_encoder):
    bags = objective()
    context = branch([mosaic()], None, text_encoder)
    with pytest.raises(
            ValueError, match='2 pseudo-words of 16, 32 in all, '
            'got 12'):
        compare(bags, torch.randn(2, 12), context)
    # What can not work stops when the model is built.
    for wrong, message in ((BagReader(WIDTH, 2, max_regions=5),
                            'takes 8 words, 4 regions'),
                           (BagReader(WIDTH, 9), 'takes 8 words, 0 regions'),
                           (BagReader(24,
                                      2), 'word_dim: expected 16.*got 24')):
        bags.reader = wrong
        with pytest.raises(ValueError, match=message):
            bags.check('bag', None, None, text_encoder)
    bags.reader = BagReader(WIDTH, 2)
    bags.check('bag', None, None, text_encoder)
    with pytest.raises(TypeError, match=r'objectives\.bag.*needs one'):
        bags.check('bag', None, None, None)


@pytest.mark.parametrize('kwargs, key', [
    (dict(num_compositions=-1), 'num_compositions'),
    (dict(max_captions=0), 'max_captions'),
    (dict(regions='boxes'), 'regions'),
    (dict(bags=dict(num_orders=0)), 'num_orders'),
    (dict(bags=dict(max_regions=0)), 'max_regions'),
    (dict(bags=dict(drop_prob=1.5)), 'drop_prob'),
    (dict(proposals=dict(max_objects=0)), 'max_objects'),
    (dict(proposals=dict(min_score=1)), 'min_score'),
])
def test_bad_arguments(kwargs, key):
    with pytest.raises(ValueError, match=key):
        objective(**kwargs)


def test_the_share_of_a_bag_in_the_mean_with_full_queues():
    """Two plain images of four orders and five captions, queues of 1024."""
    contrast = BagContrast(
        INFONCE, dict(type='mmdet_clim.FeatureQueue', size=1024, dim=8))
    torch.manual_seed(0)
    for queue in (contrast.bag_queue, contrast.text_queue):
        assert isinstance(queue, FeatureQueue)
        queue.enqueue(torch.randn(1024, 8), torch.arange(100, 1124))
    bags = torch.randn(8, 8, requires_grad=True)
    texts = torch.randn(10, 8)
    bag_ids = torch.tensor([1] * 4 + [2] * 4)
    text_ids = torch.tensor([1] * 5 + [2] * 5)
    out = contrast(bags, bag_ids[:, None], texts, text_ids, remember=False)
    rows, columns = (
        torch.nn.functional.normalize(torch.cat(of), dim=1)
        for of in ((bags, contrast.bag_queue.features),
                   (texts, contrast.text_queue.features)))
    ids = (torch.cat([bag_ids, torch.arange(100, 1124)]),
           torch.cat([text_ids, torch.arange(100, 1124)]))
    targets = (ids[0][:, None] == ids[1]).float()
    logits = 30 * rows @ columns.T
    losses = [
        -(of / of.sum(1, keepdim=True) * z.log_softmax(1)).sum(1)
        for of, z in ((targets, logits), (targets.T, logits.T))
    ]
    assert [len(of) for of in losses] == [1032, 1034]
    expected = (losses[0].mean() + losses[1].mean()) / 2
    torch.testing.assert_close(out['loss'], expected)
    own, = torch.autograd.grad(expected, bags, retain_graph=True)
    torch.testing.assert_close(
        torch.autograd.grad(out['loss'], bags)[0], own, atol=1e-7, rtol=1e-4)
    # The mean over the rows of the step alone is two orders larger.
    alone = (losses[0][:8].mean() + losses[1][:10].mean()) / 2
    larger, = torch.autograd.grad(alone, bags)
    assert 80 < larger.norm() / own.norm() < 200
