# Licensed under the Apache License, Version 2.0.
"""Sources side by side: ratios, epochs, ranks, orientations."""
import json
from collections import Counter
from itertools import islice

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet.datasets import ConcatDataset
from mmengine.dataset import BaseDataset
from torch.utils.data import DataLoader

from mmdet_clim.datasets import MultiSourceDataset, MultiSourceSampler
from mmdet_clim.registry import DATA_SAMPLERS, DATASETS


class SizedSource(BaseDataset):
    """A data set of given image sizes, named by its classes."""

    def __init__(self, sizes, classes=('a', 'b'), **meta):
        self.sizes = sizes
        super().__init__(
            metainfo=dict(classes=classes, **meta) if classes else meta,
            serialize_data=False)

    def load_data_list(self):
        return [
            dict(width=w, height=h) if w else dict() for w, h in self.sizes
        ]


def sources(*counts):
    return MultiSourceDataset([SizedSource([(4, 3)] * n) for n in counts])


def batches(sampler):
    indices = list(sampler)
    assert len(indices) == len(sampler)
    size = sampler.batch_size
    return [indices[i:i + size] for i in range(0, len(indices), size)]


def per_source(dataset, batch):
    counts = Counter(dataset.get_dataset_source(i) for i in batch)
    return tuple(counts[s] for s in range(len(dataset.datasets)))


def test_the_first_source_speaks_for_all():
    dataset = MultiSourceDataset([
        SizedSource([(1, 1)], palette='x'),
        SizedSource([(1, 1)] * 2, other=3),
        SizedSource([(1, 1)], classes=None)
    ])
    assert dataset.metainfo == dict(classes=('a', 'b'), palette='x')
    assert len(dataset) == 4
    assert [dataset.get_dataset_source(i) for i in range(4)] == [0, 1, 1, 2]


def test_a_source_of_several_data_sets():
    """mmdet's concatenation has a list of their meta information."""
    joined = ConcatDataset([
        SizedSource([(1, 1)] * 2, palette='x'),
        SizedSource([(1, 1)], palette='y')
    ])
    assert isinstance(joined.metainfo, list)
    dataset = MultiSourceDataset([joined, SizedSource([(1, 1)])])
    assert dataset.metainfo['classes'] == ('a', 'b')
    assert dataset.metainfo['palette'] == 'x'
    assert [dataset.get_dataset_source(i) for i in range(4)] == [0, 0, 0, 1]
    with pytest.raises(ValueError, match=r'datasets\[1\].*classes'):
        MultiSourceDataset([joined, SizedSource([(1, 1)], ('b', 'a'))])


def test_sources_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match=r'datasets\[1\].*classes'):
        MultiSourceDataset(
            [SizedSource([(1, 1)]),
             SizedSource([(1, 1)], ('b', 'a'))])
    with pytest.raises(ValueError, match=r'datasets\[1\].*one sample'):
        sources(3, 0)
    with pytest.raises(ValueError, match='at least one source'):
        MultiSourceDataset([])


def test_both_are_built_by_their_scoped_names(caption_file):
    part = dict(
        type='mmdet_clim.ImageTextDataset',
        ann_file=str(caption_file),
        pipeline=[])
    dataset = DATASETS.build(
        dict(type='mmdet_clim.MultiSourceDataset', datasets=[part, part]))
    sampler = DATA_SAMPLERS.build(
        dict(
            type='mmdet_clim.MultiSourceSampler',
            batch_size=2,
            source_ratio=[1, 1]),
        default_args=dict(dataset=dataset, seed=0))
    loader = DataLoader(
        dataset, sampler=sampler, batch_size=2, collate_fn=list)
    assert [len(batch) for batch in loader] == [2] * 5


def test_a_ratio_that_divides_the_batch_holds_in_every_batch():
    dataset = sources(10, 7, 40)
    sampler = MultiSourceSampler(dataset, 8, [2, 1, 1], seed=3)
    found = [per_source(dataset, b) for b in batches(sampler)]
    assert found == [(4, 2, 2)] * 3  # 10 samples of source 0, 4 at a time
    assert MultiSourceSampler(dataset, 8, [.5, .25, .25], seed=3)._counts == \
        sampler._counts


def test_a_ratio_that_does_not_divide_the_batch_holds_over_time():
    dataset = sources(70, 70, 70)
    sampler = MultiSourceSampler(dataset, 4, [3, 2, 2], epoch_length=21)
    found = [per_source(dataset, b) for b in batches(sampler)]
    assert {sum(f) for f in found} == {4}
    # Never more than one sample away from the exact share.
    totals = [0, 0, 0]
    for number, counts in enumerate(found, 1):
        totals = [t + c for t, c in zip(totals, counts)]
        for total, share in zip(totals, (3, 2, 2)):
            assert abs(total - 4 * number * share / 7) <= 1
    assert totals == [36, 24, 24]


def test_a_small_share_comes_in_some_batches():
    dataset = sources(30, 5)
    sampler = MultiSourceSampler(dataset, 2, [7, 1], epoch_length=8)
    found = [per_source(dataset, b) for b in batches(sampler)]
    assert sum(f[1] for f in found) == 2 and {sum(f) for f in found} == {2}


def test_an_epoch_is_one_pass_of_the_epoch_source():
    dataset = sources(10, 4)
    sampler = MultiSourceSampler(dataset, 4, [1, 1], seed=0)
    indices = list(sampler)
    assert len(sampler) == 20
    own = [i for i in indices if i < 10]
    assert sorted(own) == list(range(10))
    sampler = MultiSourceSampler(dataset, 4, [1, 1], seed=0, epoch_source=1)
    assert len(sampler) == 8


def test_the_last_batch_is_filled_from_the_start_of_the_pass():
    sampler = MultiSourceSampler(sources(5, 9), 4, [1, 1], seed=0)
    own = [i for i in sampler if i < 5]
    assert sorted(own[:5]) == list(range(5)) and own[5:] == own[:1]


def test_a_source_goes_on_where_the_last_epoch_stopped():
    sampler = MultiSourceSampler(sources(4, 10), 2, [1, 1], seed=5)
    drawn = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        drawn += [i for i in sampler if i >= 4]
    # 4 per epoch: two passes of 10 in five epochs.
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(4, 14))
    assert drawn[:10] != drawn[10:]


def test_a_source_smaller_than_its_share_is_repeated():
    sampler = MultiSourceSampler(sources(9, 1), 6, [1, 2], seed=5)
    assert Counter(sampler)[9] == 5 * 4


def test_the_order_depends_on_seed_and_epoch_alone():
    dataset = sources(50, 60)

    def order(seed, epoch):
        sampler = MultiSourceSampler(dataset, 4, [1, 1], seed=seed)
        list(islice(sampler, 7))  # an iterator that was left in the middle
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4)
    assert order(1, 3) != order(2, 3)


def test_two_sources_of_one_size_have_orders_of_their_own():
    sampler = MultiSourceSampler(sources(40, 40), 2, [1, 1], seed=0)
    indices = list(sampler)
    assert [i for i in indices
            if i < 40] != [i - 40 for i in indices if i >= 40]


def test_without_shuffle_in_order():
    sampler = MultiSourceSampler(sources(4, 3), 2, [1, 1], shuffle=False)
    assert list(sampler) == [0, 4, 1, 5, 2, 6, 3, 4]
    sampler.set_epoch(1)
    assert list(sampler) == [0, 5, 1, 6, 2, 4, 3, 5]


def test_no_seed_is_a_common_random_one():
    assert len(list(MultiSourceSampler(sources(4, 3), 2, [1, 1]))) == 8


@pytest.mark.parametrize('change, message', [
    (dict(source_ratio=[1]), 'source_ratio'),
    (dict(source_ratio=[1, 0]), 'source_ratio'),
    (dict(source_ratio=[1, -1]), 'source_ratio'),
    (dict(source_ratio=[1, float('nan')]), 'source_ratio'),
    (dict(batch_size=0), 'batch_size'),
    (dict(epoch_source=2), 'epoch_source'),
    (dict(epoch_length=0), 'epoch_length'),
    (dict(dataset=[1, 2]), 'cumulative_sizes'),
])
def test_arguments_that_do_not_fit_are_errors(change, message):
    arguments = dict(dataset=sources(3, 3), batch_size=2, source_ratio=[1, 1])
    with pytest.raises(ValueError, match=message):
        MultiSourceSampler(**{**arguments, **change})


WIDE, TALL = (4, 3), (3, 4)


def test_aspect_groups_are_not_mixed_while_both_last():
    dataset = MultiSourceDataset([
        SizedSource([WIDE, TALL] * 20),
        SizedSource([TALL, WIDE] * 30),
    ])
    sampler = MultiSourceSampler(
        dataset, 4, [1, 1], seed=0, aspect_grouping=True)
    plain = MultiSourceSampler(dataset, 4, [1, 1], seed=0)
    mixed, groups = 0, []
    for batch in batches(sampler):
        assert per_source(dataset, batch) == (2, 2)
        kinds = {dataset.get_data_info(i)['width'] for i in batch}
        mixed += len(kinds) > 1
        groups.append(kinds)
    # Drawn in the same numbers, only in another order.
    assert Counter(sampler) == Counter(plain)
    assert mixed <= 4
    # Both orientations from the start on, not first one and then the other.
    assert {4} in groups[:8] and {3} in groups[:8]


def test_a_source_without_a_group_does_not_hang():
    dataset = MultiSourceDataset([
        SizedSource([TALL] * 5 + [WIDE] * 6),
        SizedSource([WIDE] * 3),
        SizedSource([(None, None)] * 2),
    ])
    sampler = MultiSourceSampler(
        dataset, 6, [1, 1, 1], seed=0, aspect_grouping=True)
    found = batches(sampler)
    assert [per_source(dataset, b) for b in found] == [(2, 2, 2)] * 6
    assert set(range(11)) <= {i for b in found for i in b}


def test_aspect_grouping_with_one_source_of_one_image():
    dataset = MultiSourceDataset([SizedSource([TALL])])
    sampler = MultiSourceSampler(dataset, 3, [1], aspect_grouping=True)
    assert list(sampler) == [0, 0, 0]


def run_rank(rank, folder, aspect_grouping):
    """Write down what one rank of two draws in two epochs."""
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    dataset = MultiSourceDataset([
        SizedSource([WIDE, TALL, WIDE] * 7),
        SizedSource([WIDE, TALL] * 20),
    ])
    # No seed: the ranks have to agree on one.
    sampler = MultiSourceSampler(
        dataset, 3, [2, 1], aspect_grouping=aspect_grouping)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(batches(sampler))
    with open(f'{folder}/{rank}.json', 'w', encoding='utf-8') as file:
        json.dump(epochs, file)
    dist.destroy_process_group()


@pytest.mark.parametrize('aspect_grouping', [False, True])
def test_two_ranks_draw_disjoint_parts_of_one_order(tmp_path, aspect_grouping):
    mp.start_processes(
        run_rank, (str(tmp_path), aspect_grouping),
        nprocs=2,
        start_method='fork')
    ranks = [
        json.loads((tmp_path / f'{r}.json').read_text(encoding='utf-8'))
        for r in range(2)
    ]
    passes = Counter()
    for epoch in range(2):
        first, second = ranks[0][epoch], ranks[1][epoch]
        assert len(first) == len(second) == 6  # ceil(21 / 2 / 2)
        drawn = Counter()
        for one, other in zip(first, second):
            assert [i < 21
                    for i in one] == [i < 21
                                      for i in other] == [True, True, False]
            drawn.update(one + other)
        own = [drawn[i] for i in range(21)]
        assert sum(own) == 24 and min(own) == 1 and max(own) == 2
        passes.update({i: n for i, n in drawn.items() if i >= 21})
    # Of the other source no sample twice before all 40 came.
    assert sum(passes.values()) == 24 and max(passes.values()) == 1
