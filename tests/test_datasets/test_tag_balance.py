# Licensed under the Apache License, Version 2.0.
"""Captioned images whose rare tags come more often (docs/long_tail.md)."""
import json
from collections import Counter

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from mmdet_clim.datasets import MultiSourceSampler
from mmdet_clim.registry import DATASETS

# Sixteen images. With t = 1/2: cat in 8, f = 1/2, r = 1; dog in 2, f = 1/8,
# r = sqrt(4) = 2; eel in 1, f = 1/16, r = sqrt(8) = 2.83, three times.
TAGS = [['cat']] * 6 + [['cat', 'dog'], ['dog'], ['cat', 'eel']] + [[]] * 7
REPEATS = [1] * 6 + [2, 2, 3] + [1] * 7
PLAIN, BALANCED = 16, 20


@pytest.fixture
def source(tmp_path, write_image):
    """Config of a data set of mosaics of the sixteen images."""
    write_image(tmp_path / 'image.png', 4, 4)
    lines = [
        json.dumps(
            dict(id=n, file_name='image.png', captions=['a'], tags=tags))
        for n, tags in enumerate(TAGS)
    ]
    path = tmp_path / 'captions.jsonl'
    path.write_text('\n'.join(lines), encoding='utf-8')
    return dict(
        type='mmdet_clim.ImageTextDataset',
        ann_file=str(path),
        data_prefix=dict(img=str(tmp_path)),
        metainfo=dict(classes=('cat', 'dog', 'eel')),
        pipeline=[
            dict(type='mmdet_clim.LoadImageText'),
            dict(
                type='mmdet_clim.MosaicCLIM',
                grids=[(2, 2)],
                out_size=(8, 8),
                cache_size=40),
        ])


def build_sources(source):
    """The images as they are, and balanced."""
    return DATASETS.build(
        dict(
            type='mmdet_clim.MultiSourceDataset',
            datasets=[
                source,
                dict(
                    type='ClassBalancedDataset',
                    oversample_thr=0.5,
                    dataset=source)
            ]))


@pytest.fixture
def sources(source):
    return build_sources(source)


def test_repeats_of_each_image(sources):
    balanced = sources.datasets[1]
    drawn = Counter(
        balanced.get_data_info(n)['img_id'] for n in range(len(balanced)))
    assert [drawn[n] for n in range(PLAIN)] == REPEATS
    assert len(balanced) == BALANCED == sum(REPEATS)
    assert sources.cumulative_sizes == [PLAIN, PLAIN + BALANCED]
    factors = balanced._get_repeat_factors(balanced.dataset, 0.5)
    assert factors == pytest.approx([1] * 6 + [2, 2, 8**.5] + [1] * 7)


def test_rare_tags_meet_more_mosaics(sources):
    """Tiles of drawn mosaics against the shares worked out above."""
    np.random.seed(0)
    sampler = MultiSourceSampler(sources, 4, [1, 1], epoch_length=300, seed=0)
    tiles = [Counter(), Counter()]
    total = [0, 0]
    for index in sampler:
        number = sources.get_dataset_source(index)
        mosaic = sources[index]
        total[number] += len(mosaic['tags'])
        for tags in mosaic['tags']:
            tiles[number].update(tags)
    assert total == [2400, 2400]
    # Images with cat, dog and eel among 16, and among 20 with repeats.
    for number, counts, size in ((0, (8, 2, 1), PLAIN), (1, (11, 4, 3),
                                                         BALANCED)):
        for tag, count in enumerate(counts):
            assert tiles[number][tag] / 2400 == pytest.approx(
                count / size, abs=.03)
    assert tiles[1][2] > 2 * tiles[0][2]


def test_a_pass_holds_every_repeat_once(sources):
    """Over finite epochs that do not divide a pass."""
    sampler = MultiSourceSampler(sources, 4, [3, 1], seed=1, epoch_length=3)
    drawn = []
    for epoch in range(20):
        sampler.set_epoch(epoch)
        drawn += [i for i in sampler if i >= PLAIN]
    assert len(drawn) == 3 * BALANCED
    for start in range(0, len(drawn), BALANCED):
        ids = Counter(
            sources.get_data_info(i)['img_id']
            for i in drawn[start:start + BALANCED])
        assert [ids[n] for n in range(PLAIN)] == REPEATS


def test_its_pass_can_be_the_epoch(sources):
    sampler = MultiSourceSampler(
        sources, 4, [1, 1], seed=0, epoch_source=1, aspect_grouping=True)
    assert len(sampler) == 2 * BALANCED
    assert sorted(i for i in sampler
                  if i >= PLAIN) == list(range(PLAIN, PLAIN + BALANCED))


def order(sources, seed, epoch):
    sampler = MultiSourceSampler(sources, 4, [1, 1], seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_a_resumed_run_draws_the_same(source):
    expected = order(build_sources(source), seed=7, epoch=3)
    assert order(build_sources(source), seed=7, epoch=3) == expected
    assert order(build_sources(source), seed=8, epoch=3) != expected
    assert order(build_sources(source), seed=7, epoch=4) != expected


def run_rank(rank, folder, sources):
    """Write down what one rank of two draws in an epoch."""
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    drawn = list(
        MultiSourceSampler(sources, 4, [1, 1], epoch_source=1, seed=0))
    with open(f'{folder}/{rank}.json', 'w', encoding='utf-8') as file:
        json.dump(drawn, file)
    dist.destroy_process_group()


def test_two_ranks_share_the_repeats(sources, tmp_path):
    mp.start_processes(
        run_rank, (str(tmp_path), sources), nprocs=2, start_method='fork')
    ranks = [
        json.loads((tmp_path / f'{r}.json').read_text(encoding='utf-8'))
        for r in range(2)
    ]
    assert len(ranks[0]) == len(ranks[1]) == BALANCED
    drawn = sorted(i for rank in ranks for i in rank if i >= PLAIN)
    assert drawn == list(range(PLAIN, PLAIN + BALANCED))


def test_without_a_vocabulary_nothing_is_repeated(source):
    del source['metainfo']
    balanced = DATASETS.build(
        dict(type='ClassBalancedDataset', oversample_thr=.5, dataset=source))
    assert len(balanced) == PLAIN
