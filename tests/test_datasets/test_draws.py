# Licensed under the Apache License, Version 2.0.
"""Samples that depend on the draw, whoever makes them and when."""
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from torch.utils.data import DataLoader

from mmdet_clim.datasets import (
    ClassBalancedDataset,
    MultiSourceBatchSampler,
    MultiSourceDataset,
    MultiSourceSampler,
)
from mmdet_clim.datasets.draws import Draw, current_drawing
from mmdet_clim.datasets.transforms import MosaicCLIM
from mmdet_clim.seeds import seed_generators, seed_sequence


def draw_of_all(sample):
    """What transforms draw, of each generator."""
    return dict(
        sample,
        drawn=(random.random(), np.random.rand(), torch.rand(()).item()))


class Numbers(BaseDataset):
    """Samples without files."""

    def __init__(self, size, *pipeline):
        self.size = size
        super().__init__(pipeline=pipeline, serialize_data=False)

    def load_data_list(self):
        return [dict(img_id=number) for number in range(self.size)]

    def get_cat_ids(self, idx):
        return [idx % 2]


def loader(datasets, batch_size=4, seed=0, rank=0, start=0, **options):
    """A loader of ``MultiSourceDataset`` that starts at an iteration."""
    dataset = MultiSourceDataset(datasets)
    sampler = MultiSourceSampler(
        dataset, source_ratio=[1] * len(datasets), seed=seed)
    sampler.rank, sampler.world_size = rank, 2
    batches = MultiSourceBatchSampler(sampler, batch_size)
    sampler.start_at(start)
    # An iterator of DataLoader draws a seed for its workers.
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=list,
        generator=torch.Generator(),
        **options)


def epochs(made, count):
    """The batches of some epochs from where a loader is."""
    first = made.batch_sampler.sampler.epoch
    found = []
    for epoch in range(first, count):
        made.batch_sampler.sampler.set_epoch(epoch)
        found += list(made)
    return found


def test_a_draw_is_an_index_and_travels():
    draw = Draw(7, 1, 2, 3, 4, 5)
    other = pickle.loads(pickle.dumps(draw))
    assert other == 7 and [10, 20][Draw(1, 0, 0, 0, 0, 1)] == 20
    assert vars(other) == vars(draw) == dict(
        seed=1, rank=2, iteration=3, slot=4, batch_size=5)
    assert draw.place == (3, 4)


def test_samples_are_the_same_whoever_makes_them():
    """No worker, one, three, and a process that starts in the middle."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    parts = [Numbers(9, draw_of_all), Numbers(5, draw_of_all)]
    whole = epochs(loader(parts), 2)
    # This process's generators are as they were.
    assert (random.random(), np.random.rand(), torch.rand(
        ()).item()) == expected
    assert len(whole) == 6
    for start, workers in ((0, 1), (0, 3), (2, 2), (5, 0)):
        again = epochs(loader(parts, num_workers=workers, start=start), 2)
        assert again == whole[start:]
    assert current_drawing() is None


def test_no_two_samples_share_a_stream():
    """Five neighbouring seeds, two ranks, two workers, two epochs."""
    values, count = set(), 0
    for seed in range(5):
        for rank in range(2):
            made = loader([Numbers(6, draw_of_all)],
                          seed=seed,
                          rank=rank,
                          num_workers=2 * (seed == 0))
            for batch in epochs(made, 2):
                for sample in batch:
                    values.update(sample['drawn'])
                    count += 3
    assert count == 5 * 2 * 2 * 4 * 3
    assert len(values) == count


def test_purposes_and_positions_have_streams_of_their_own():
    """No number of one stream is in another, near its start or later on."""
    positions = [(purpose, seed, rank, number)
                 for purpose in ('sample', 'model', 'order')
                 for seed in range(5) for rank in range(3)
                 for number in range(4)]
    # What sums and SeedSequence itself take for the same.
    positions += [('model', 0), ('model', 0, 0), ('model', 2**32, 0),
                  ('model', 0, 1), ('model', -1), ('model', 0, 0, 0, 0)]
    seen = set()
    for position in positions:
        seed_generators(*position)
        seen.update(
            np.random.rand(50),
            torch.rand(50).tolist(), (random.random() for _ in range(50)),
            np.random.default_rng(seed_sequence(*position)).random(50))
    # Single precision meets itself now and then.
    assert len(seen) > 200 * len(positions) - 20
    with pytest.raises(ValueError):
        seed_sequence('model', 'x')


def test_numbers_of_numpy_are_the_same_position():
    assert seed_sequence('a', np.int64(3)).entropy == \
        seed_sequence('a', 3).entropy


def test_indices_without_a_place_are_passed_on():
    dataset = MultiSourceDataset([Numbers(4, draw_of_all)])
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    assert dataset[2]['drawn'][1] == expected
    assert dataset[2]['drawn'][1] != expected


def test_a_balanced_set_alone():
    dataset = ClassBalancedDataset(Numbers(4, draw_of_all), oversample_thr=.1)
    sampler = MultiSourceSampler(dataset, 2, seed=0)
    first = [dataset[draw] for draw in sampler]
    np.random.rand()
    assert [dataset[draw] for draw in sampler] == first


LOADED = []


def add_image(sample):
    """Noise, so that every draw of a sample shows in its mosaics."""
    LOADED.append(sample['img_id'])
    image = np.random.randint(0, 255, (4, 4, 3), dtype=np.uint8)
    return dict(sample, img=image, captions=[f"{sample['img_id']}"])


def mosaics(cache_size=12, wrap=lambda mosaic: mosaic):
    return Numbers(
        7, add_image,
        wrap(
            MosaicCLIM(
                grids=[(2, 2), (1, 3)],
                out_size=(12, 12),
                cache_size=cache_size)))


def pictures(batches):
    return [[(sample.get('image_ids'), sample['img'].tolist())
             for sample in batch if 'img' in sample] for batch in batches]


@pytest.mark.parametrize('workers, persistent', [(0, False), (2, False),
                                                 (2, True), (3, True)])
def test_mosaics_of_a_resumed_run(workers, persistent):
    """Pixels too, from any iteration on, over the ends of epochs."""
    options = dict(num_workers=workers, persistent_workers=persistent)

    def parts():
        return [Numbers(10), mosaics()]

    whole = pictures(epochs(loader(parts(), **options), 5))
    # A pass of the first source is three batches of two ranks.
    assert len(whole) == 15
    partners = {tuple(ids) for batch in whole for ids, _ in batch}
    assert len(partners) > 20
    for start in (4, 14) if workers else (1, 4, 6, 14):
        resumed = pictures(epochs(loader(parts(), start=start, **options), 5))
        assert resumed == whole[start:]


def test_mosaics_that_only_some_samples_reach():
    """Two mosaics of one source, each with images of its own."""

    class Either:

        def __init__(self, one, other):
            self.parts = one, other

        def __call__(self, sample):
            return self.parts[sample['img_id'] % 2](sample)

    def parts():
        other = MosaicCLIM(grids=[(2, 1)], out_size=(12, 12), cache_size=5)
        return [
            Numbers(10),
            mosaics(wrap=lambda mosaic: Either(mosaic, other))
        ]

    whole = pictures(epochs(loader(parts()), 5))
    for ids, _ in (sample for batch in whole for sample in batch):
        assert len({number % 2 for number in ids}) == 1
    assert pictures(epochs(loader(parts(), start=7), 5)) == whole[7:]


def test_the_schedule_of_grids_counts_iterations():
    """Whatever workers make ahead."""

    def part():
        source = mosaics()
        mosaic = source.pipeline.transforms[-1]
        mosaic.follow_schedule([6, 9], [[1, 0], [0, 1], [1, 0]])
        mosaic.initial_grid_weights = np.array([1., 0])
        return source

    for workers in (0, 2):
        made = loader([Numbers(10), part()],
                      num_workers=workers,
                      persistent_workers=workers > 0)
        grids = [{
            tuple(sample['mosaic_grid'])
            for sample in batch if 'mosaic_grid' in sample
        } for batch in epochs(made, 4)]
        assert grids == [{(2, 2)}] * 6 + [{(1, 3)}] * 3 + [{(2, 2)}] * 3


def test_resuming_loads_the_same_late_as_early():
    """The partners that are drawn, never more than the cache holds."""
    counts = []
    for start in (40, 40000):
        made = loader([Numbers(10), mosaics(cache_size=6)], start=start)
        LOADED.clear()
        next(iter(made))
        counts.append(len(LOADED))
        assert 2 < len(LOADED) <= 2 + 6
        many = loader([Numbers(10), mosaics(cache_size=6)], start=start)
        LOADED.clear()
        # Each image once: two of a batch, and what the cache held.
        drawn = sum(
            sum(d >= 10 for d in batch) for batch in many.batch_sampler)
        many.batch_sampler.sampler.start_at(start)
        list(many)
        assert len(LOADED) <= drawn + 6
