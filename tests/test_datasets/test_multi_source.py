# Licensed under the Apache License, Version 2.0.
"""Sources side by side: ratios, epochs, ranks, orientations."""
import json
import pickle
from collections import Counter
from itertools import combinations, islice

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet.datasets import ConcatDataset
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from torch.utils.data import DataLoader, SequentialSampler

from mmdet_clim.datasets import (
    MultiSourceBatchSampler,
    MultiSourceDataset,
    MultiSourceSampler,
)
from mmdet_clim.datasets.pass_order import KeyedPermutation
from mmdet_clim.registry import DATA_SAMPLERS, DATASETS
from mmdet_clim.seeds import seed_sequence


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
    same = MultiSourceSampler(dataset, 8, [.5, .25, .25], seed=3)
    assert list(same) == list(sampler)


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
    (dict(source_ratio=[1, float('inf')]), 'source_ratio'),
    (dict(source_ratio=[0, 0]), 'source_ratio'),
    (dict(source_ratio=[1, '1']), 'source_ratio'),
    (dict(source_ratio=[]), 'source_ratio'),
    (dict(source_ratio=2), 'source_ratio'),
    (dict(source_ratio=None), 'source_ratio'),
    (dict(source_ratio=[1e-7, 1]), 'source_ratio: .*one in a million'),
    (dict(source_ratio=[1e300, 1]), 'source_ratio: .*one in a million'),
    (dict(source_ratio=[1, 1e-300]), 'source_ratio: .*one in a million'),
    (dict(batch_size=0), 'batch_size'),
    (dict(batch_size=2.5), 'batch_size: .*whole number'),
    (dict(epoch_source=2), 'epoch_source'),
    (dict(epoch_length=0), 'epoch_length'),
    (dict(dataset=[1, 2]), 'source_ratio: .*each of 1 sources'),
])
def test_arguments_that_do_not_fit_are_errors(change, message):
    arguments = dict(dataset=sources(3, 3), batch_size=2, source_ratio=[1, 1])
    with pytest.raises(ValueError, match=message):
        MultiSourceSampler(**{**arguments, **change})


def test_another_length_of_an_epoch():
    loader = dict(
        dataset=sources(3, 3),
        sampler=dict(
            type='mmdet_clim.MultiSourceSampler', source_ratio=[1, 1]),
        batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
        batch_size=2)
    # MMEngine's way, of which the sampler would take no notice.
    with pytest.raises(ValueError, match='sampler.epoch_length'):
        Runner.build_dataloader(dict(loader, num_batch_per_epoch=1))
    loader['sampler']['epoch_length'] = 1
    assert len(Runner.build_dataloader(loader)) == 1


def test_ratios_of_many_digits():
    """Shares of each batch against the plain sums of the ratio."""
    for ratio in ([1e308, 1e308], [3, 2.7182818284], [1, 1 / 3], [2e-6, 1],
                  [.1, .2, .7], [7, 11, 13]):
        dataset = sources(*[50] * len(ratio))
        sampler = MultiSourceSampler(dataset, 5, ratio, epoch_length=400)
        whole = sum(r / max(ratio) for r in ratio)
        totals = [0] * len(ratio)
        for number, batch in enumerate(batches(sampler), 1):
            for source, count in enumerate(per_source(dataset, batch)):
                totals[source] += count
                share = 5 * number * (ratio[source] / max(ratio)) / whole
                assert abs(totals[source] - share) <= 1 + 1e-3


def test_an_epoch_without_end_is_an_error():
    """2e-6 of a sample in each batch, for ten million samples."""

    class Many:
        cumulative_sizes = [10**7, 10**7 + 1]

        def __len__(self):
            return 10**7 + 1

    with pytest.raises(ValueError, match='source_ratio: .*epoch_length'):
        MultiSourceSampler(Many(), 1, [2e-6, 1])
    assert len(MultiSourceSampler(Many(), 1, [2e-6, 1], epoch_length=7)) == 7


def test_the_first_index_of_many_needs_few_steps():
    """Twelve million samples: no list, no loop over them."""

    class Many:
        cumulative_sizes = [12 * 10**6]

        def __len__(self):
            return 12 * 10**6

        def full_init(self):
            pass

        def __getattr__(self, name):
            raise AssertionError(name)

    sampler = MultiSourceSampler(Many(), 16, [1], seed=0)
    assert len(sampler) == 12 * 10**6
    assert len(sampler._plan.counts) == 1
    batch = next(sampler.batches())
    assert len(set(batch)) == 16 and max(batch) < 12 * 10**6
    # Nothing is kept that grows with the source.
    assert len(pickle.dumps(sampler._passes)) < 10**4
    assert batch == sampler.draws(0) != sampler.draws(1)
    sampler.start_at(700_000)
    assert next(sampler.batches()) == sampler.draws(700_000)


@pytest.mark.parametrize('size', [1, 2, 3, 5, 8, 1000, 1 << 16])
def test_a_keyed_permutation_gives_each_number_once(size):
    orders = [
        KeyedPermutation(7, size, seed_sequence('order', seed))[:]
        for seed in range(3)
    ]
    for order in orders:
        assert sorted(order) == list(range(7, 7 + size))
    if size > 100:
        assert all((one != other).mean() > .98
                   for one, other in combinations(orders, 2))
    part = KeyedPermutation(7, size, seed_sequence('order', 1))[size // 3:]
    assert part.tolist() == orders[1][size // 3:].tolist()


def test_a_keyed_permutation_is_as_even_as_a_shuffle():
    """Where a number lands, against chance; and neighbours come apart."""
    size = 40_000
    landed = np.zeros((20, 20), dtype=int)
    for seed in range(10):
        order = KeyedPermutation(0, size, seed_sequence('order', seed))[:]
        np.add.at(landed, (np.arange(size) // 2000, order // 2000), 1)
        assert abs(np.corrcoef(np.arange(size), order)[0, 1]) < .025
        steps = np.diff(order)
        assert np.unique(steps).size > .6 * size
    # Chi-squared of 361 degrees of freedom, fewer as rows and columns add up.
    assert ((landed - 1000)**2 / 1000).sum() < 361 + 5 * (2 * 361)**.5


def test_a_source_of_fewer_is_shuffled_as_ever():
    """The draws of the published recipes."""
    sampler = MultiSourceSampler(sources(50), 5, seed=3)
    order = np.arange(50)
    np.random.default_rng(seed_sequence('order', 3, 0, 0)).shuffle(order)
    assert list(sampler) == order.tolist()


WIDE, TALL = (4, 3), (3, 4)


def test_the_batch_size_is_that_of_the_loader():
    dataset = sources(10, 7, 40)
    sampler = MultiSourceSampler(dataset, source_ratio=[1, 1, 2], seed=3)
    with pytest.raises(ValueError, match='batch_size: .*MultiSourceBatchSamp'):
        len(sampler)
    with pytest.raises(ValueError, match='batch_size: .*MultiSourceBatchSamp'):
        next(iter(sampler))
    loader = DataLoader(
        dataset,
        batch_sampler=MultiSourceBatchSampler(sampler, 4),
        collate_fn=list)
    assert len(loader) == 10
    assert list(loader.batch_sampler) == batches(
        MultiSourceSampler(dataset, 4, [1, 1, 2], seed=3))


def build_loader(sampler=None, **options):
    """As MMEngine builds it."""
    return Runner.build_dataloader(
        dict(
            dataset=sources(10, 7),
            sampler=dict(
                type='mmdet_clim.MultiSourceSampler', **(sampler or {})),
            num_workers=0,
            collate_fn=dict(type='pseudo_collate'),
            **options),
        seed=3)


BATCHES = dict(batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'))


def test_two_batch_sizes_that_differ_are_an_error():
    both = (r'train_dataloader.batch_size is 4, .*'
            r'train_dataloader.sampler.batch_size, which is 16')
    ratio = dict(source_ratio=[1, 1])
    with pytest.raises(ValueError, match=both):
        build_loader(dict(ratio, batch_size=16), batch_size=4, **BATCHES)
    # Also where nobody tells one of the other.
    old = build_loader(dict(ratio, batch_size=16), batch_size=4)
    with pytest.raises(ValueError, match=both):
        next(iter(old))
    for options in (dict(ratio, batch_size=4), ratio):
        loader = build_loader(options, batch_size=4, **BATCHES)
        # Ten of the first source, two at a time.
        assert len(loader) == 5
        assert loader.batch_sampler.sampler.batch_size == 4
    with pytest.raises(ValueError, match='sampler: .*got SequentialSampler'):
        MultiSourceBatchSampler(SequentialSampler([1]), 4)


def test_any_data_set_is_one_source():
    dataset = SizedSource([WIDE] * 5)
    sampler = MultiSourceSampler(dataset, 2, seed=0)
    assert sorted(sampler)[:5] == sorted(set(sampler)) == list(range(5))
    assert len(sampler) == 6
    with pytest.raises(ValueError, match='source_ratio: .*1 sources'):
        MultiSourceSampler(dataset, 2, [1, 1])


@pytest.mark.parametrize('aspect_grouping', [False, True])
def test_it_starts_at_any_iteration(aspect_grouping):
    """What is left of the whole order, and the draws are the same."""

    def sampler():
        return MultiSourceSampler(
            MultiSourceDataset([
                SizedSource([WIDE, TALL, WIDE] * 4),
                SizedSource([TALL, WIDE] * 5),
            ]),
            5, [2, 1],
            seed=4,
            aspect_grouping=aspect_grouping)

    whole = sampler()
    length = whole.batches_per_epoch
    order = []
    for epoch in range(3):
        whole.set_epoch(epoch)
        order += whole.batches()
    assert len(order) == 3 * length
    for start in range(2 * length):
        resumed = sampler()
        resumed.start_at(start)
        epoch = start // length
        found = list(resumed.batches())
        resumed.set_epoch(epoch + 1)
        found += resumed.batches()
        expected = order[start:(epoch + 2) * length]
        assert found == expected
        assert [[(d.iteration, d.slot) for d in b] for b in found
                ] == [[(d.iteration, d.slot) for d in b] for b in expected]


@pytest.mark.parametrize('workers', [1, 2, 3, 7])
def test_the_past_of_a_worker(workers):
    """Against a list of what each worker of PyTorch's loader gets."""
    dataset = sources(9, 4)
    sampler = MultiSourceSampler(dataset, 4, [3, 1], seed=0)
    length = sampler.batches_per_epoch
    assert length == 3
    streams = [[] for _ in range(workers)]
    for epoch in range(6):
        for batch in range(length):
            iteration = epoch * length + batch
            stream = streams[batch % workers]
            for source in range(2):
                own = [
                    d.place for i in stream for d in sampler.draws(i)
                    if dataset.source_of(d) == source
                ]
                for count in (1, 2, 7, 100):
                    past = sampler.past_of_stream(source, iteration, workers,
                                                  count)
                    assert [d.place for d in past] == own[-count:]
            if stream:
                assert sampler.next_of_stream(stream[-1], workers) == iteration
            stream.append(iteration)


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
