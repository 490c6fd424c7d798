# Licensed under the Apache License, Version 2.0.
"""Shards read in order: ranks, workers, resuming, mosaics, bad shards."""
import io
import pickle
import tarfile
from collections import Counter
from types import SimpleNamespace

import cv2
import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmdet_clim.datasets import (
    ImageTextDataset,
    MultiSourceBatchSampler,
    MultiSourceDataset,
    MultiSourceSampler,
    ShardStreamDataset,
    UnreadableImageError,
    shard_stream,
)
from mmdet_clim.datasets.transforms import LoadImageText, MosaicCLIM
from mmdet_clim.engine.hooks import UnreadableImagesHook

COUNTS = [5, 3, 7, 4, 6, 2, 8, 5]


def png(value):
    image = np.full((2, 1 + value % 7, 3), value, np.uint8)
    return cv2.imencode('.png', image)[1].tobytes()


def shard_bytes(members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode='w') as shard:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture
def shards(tmp_path):
    """Eight shards of 40 samples; the caption is shard and sample."""
    for number, count in enumerate(COUNTS):
        members = {}
        for i in range(count):
            members[f'{i}.png'] = png(10 * number + i)
            members[f'{i}.txt'] = f'{number} {i}'.encode()
        (tmp_path / f'{number}.tar').write_bytes(shard_bytes(members))
    return str(tmp_path / '{0..7}.tar')


def stream(shards, *pipeline, **options):
    options = {**dict(num_samples=40, buffer_size=6), **options}
    return ShardStreamDataset(shards, pipeline=list(pipeline), **options)


def loader(dataset,
           start=0,
           rank=0,
           ranks=1,
           workers=0,
           batch_size=4,
           **options):
    parts = MultiSourceDataset([dataset])
    sampler = MultiSourceSampler(parts, seed=3)
    sampler.rank, sampler.world_size = rank, ranks
    batches = MultiSourceBatchSampler(sampler, batch_size)
    sampler.start_at(start)
    return DataLoader(
        parts,
        batch_sampler=batches,
        collate_fn=list,
        num_workers=workers,
        generator=torch.Generator(),
        **options)


def captions(made, epochs):
    """What is drawn up to the end of some epochs, by batch."""
    found = []
    for epoch in range(made.batch_sampler.sampler.epoch, epochs):
        made.batch_sampler.sampler.set_epoch(epoch)
        found += [[s['captions'][0] for s in batch] for batch in made]
    return found


ALL = {f'{n} {i}' for n, count in enumerate(COUNTS) for i in range(count)}


def test_without_a_draw_in_the_order_of_the_shards(shards):
    dataset = stream(shards, LoadImageText(), shuffle=False)
    samples = [dataset[i] for i in range(41)]
    assert [s['captions'] for s in samples[:9]
            ] == [[f'0 {i}']
                  for i in range(5)] + [[f'1 {i}']
                                        for i in range(3)] + [['2 0']]
    assert samples[40]['captions'] == ['0 0']
    for sample in samples:
        number, i = map(int, sample['captions'][0].split())
        value = 10 * number + i
        assert sample['img'].shape == (2, 1 + value % 7, 3)
        assert (sample['img'] == value).all()
    assert len({s['image_key'] for s in samples}) == 40
    # Back again, and far ahead.
    assert dataset[3]['captions'] == ['0 3']
    assert dataset[85]['captions'] == ['1 0']


def test_a_pass_has_each_sample_once_in_random_order(shards):
    drawn = sum(captions(loader(stream(shards, buffer_size=8)), 3), [])
    for start in (0, 40, 80):
        assert set(drawn[start:start + 40]) == ALL
    assert drawn[:40] != drawn[40:80]
    # Not in the order of a shard within the buffer.
    runs = sum(one.split()[0] == other.split()[0] and int(one.split()[1]) +
               1 == int(other.split()[1])
               for one, other in zip(drawn, drawn[1:]))
    assert runs < 40


def test_ranks_and_workers_read_shards_of_their_own(shards):
    drawn = [
        captions(
            loader(
                stream(shards, num_samples=16, buffer_size=4),
                rank=rank,
                ranks=2,
                workers=2), 1) for rank in range(2)
    ]
    of_shard = {}
    for rank, batches in enumerate(drawn):
        assert len(batches) == 2
        for number, batch in enumerate(batches):
            for caption in batch:
                of_shard.setdefault(caption.split()[0], set()).add(
                    (rank, number % 2))
    assert all(len(lanes) == 1 for lanes in of_shard.values())
    assert len(of_shard) >= 4


@pytest.mark.parametrize('workers, persistent', [(0, False), (2, False),
                                                 (3, True)])
def test_a_resumed_run_goes_on_at_the_sample(shards, workers, persistent):
    options = dict(workers=workers, persistent_workers=persistent)
    whole = captions(loader(stream(shards), **options), 3)
    assert len(whole) == 30
    for start in (1, 13, 29):
        assert captions(loader(stream(shards), start, **options),
                        3) == whole[start:]


def test_a_resumed_run_reads_only_what_it_needs(shards, monkeypatch):
    captions(loader(stream(shards)), 2)
    opened = []
    read = shard_stream.shard_contents
    monkeypatch.setattr(shard_stream, 'shard_contents',
                        lambda shard: opened.append(shard) or read(shard))
    next(iter(loader(stream(shards), start=2000)))
    # Four samples of a block of six.
    assert 1 <= len(opened) <= 4


def test_mosaics_of_a_resumed_run(shards):

    def made(start=0):
        mosaic = MosaicCLIM(grids=[(2, 2)], out_size=(12, 12), cache_size=9)
        return loader(
            stream(shards, LoadImageText(scale=(12, 12)), mosaic),
            start,
            workers=2 * (start == 0))

    def pictures(made):
        for epoch in range(made.batch_sampler.sampler.epoch, 2):
            made.batch_sampler.sampler.set_epoch(epoch)
            for batch in made:
                yield [(s['captions'], s['img'].tolist()) for s in batch]

    resumed = list(pictures(made(start=9)))
    assert len({c for b in resumed for s, _ in b for (c, ) in s}) > 10
    one_worker = loader(
        stream(shards, LoadImageText(scale=(12, 12)),
               MosaicCLIM(grids=[(2, 2)], out_size=(12, 12), cache_size=9)))
    assert list(pictures(one_worker))[9:] == resumed
    assert len(list(pictures(made()))) == 20


def test_it_is_a_source_beside_others(shards):
    """Each gives what the others leave of a batch."""
    parts = MultiSourceDataset(
        [stream(shards, buffer_size=8) for _ in range(2)])
    sampler = MultiSourceSampler(parts, 5, [3, 2], seed=0, epoch_length=16)
    drawn = [[], []]
    for index in sampler:
        drawn[parts.source_of(index)].append(parts[index]['captions'][0])
    assert [len(d) for d in drawn] == [48, 32]
    assert set(drawn[0][:40]) == ALL and len(set(drawn[1])) == 32
    assert drawn[0][:32] != drawn[1]


def test_pipes_and_addresses(shards, tmp_path):
    memory = fsspec.filesystem('memory')
    expected = []
    for number in range(2):
        data = (tmp_path / f'{number}.tar').read_bytes()
        memory.pipe(f'/clim/{number:02d}.tar', data)
    plain = stream(str(tmp_path / '{0..1}.tar'), shuffle=False)
    expected = [plain[i]['captions'] for i in range(8)]
    for source in ('memory://clim/{00..01}.tar',
                   f'pipe:cat {tmp_path}/{{0..1}}.tar',
                   [f'file://{tmp_path}/{n}.tar' for n in range(2)]):
        dataset = stream(source, LoadImageText(), shuffle=False)
        assert [dataset[i]['captions'] for i in range(8)] == expected


def test_shards_that_cannot_be_read(shards, tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr(shard_stream, 'print_log',
                        lambda text, **kwargs: texts.append(text))
    whole = (tmp_path / '0.tar').read_bytes()
    (tmp_path / '0.tar').write_bytes(whole[:3000])
    (tmp_path / '1.tar').write_bytes(b'<html>not found</html>' * 99)
    dataset = stream([
        str(tmp_path / '{0..1}.tar'), 'pipe:exit 3', 'memory://clim/none',
        str(tmp_path / '5.tar')
    ],
                     shuffle=False)
    assert [dataset[i]['captions'][0]
            for i in range(5)] == ['0 0', '5 0', '5 1', '0 0', '5 0']
    found = '\n'.join(texts)
    assert '0.tar: skipped after 1 samples (ReadError' in found
    assert '1.tar: skipped after 0 samples' in found
    assert 'pipe:exit 3: skipped' in found
    assert 'memory://clim/none: skipped' in found
    nothing = stream([str(tmp_path / '1.tar')])
    with pytest.raises(UnreadableImageError, match='expected an image with'):
        nothing[0]


def test_members_that_are_no_samples(tmp_path, monkeypatch):
    texts = []
    for module in ('unreadable', 'image_text'):
        monkeypatch.setattr(f'mmdet_clim.datasets.{module}.print_log',
                            lambda text, **kwargs: texts.append(text))
    (tmp_path / 'a.tar').write_bytes(
        shard_bytes({
            'a.png': png(1),
            'b.png': png(2),
            'b.txt': b'  \n',
            'c.json': b'{"caption": "x", "tags": ["cat", "owl"], "width": 3}',
            'c.png': png(3),
            'd.png': png(4),
            'd.json': b'{"caption": 4}',
            'e.png': png(5),
            'e.json': b'{"caption": "y", "width": -1}',
            'f.png': b'',
            'f.txt': b'broken',
            'g.txt': b'no image',
            'h.png': png(7),
            'h.txt': b'last',
        }))
    dataset = stream(
        str(tmp_path / 'a.tar'),
        LoadImageText(),
        shuffle=False,
        vocabulary=['dog', 'cat'],
        num_samples=3)
    samples = [dataset[i] for i in range(3)]
    assert [s['captions'] for s in samples] == [['x'], ['last'], ['last']]
    shard = f'{tmp_path}/a.tar: '
    assert [text.split(shard)[-1] for text in texts[:6] if shard in text] == [
        'a: no caption', 'b: no caption',
        'd: images whose text or JSON cannot be read',
        'e: images whose text or JSON cannot be read',
        'g: texts without an image'
    ]
    # By offset: what is left out is counted, and the rest is read.
    texts.clear()
    assert [
        ImageTextDataset(str(tmp_path / 'a.tar')).get_data_info(i)['captions']
        for i in range(3)
    ] == [['x'], ['broken'], ['last']]
    assert '2 images without a caption' in texts[0]
    assert '2 images whose text or JSON cannot be read' in texts[0]
    assert samples[0]['tags'] == [1] and samples[0]['width'] == 3
    assert dataset.metainfo['classes'] == ('dog', 'cat')
    assert next(dataset.image_orientations()).tolist() == [-1] * 3
    # A vocabulary without a split, as other data sets take it.
    dataset = stream(
        str(tmp_path / 'a.tar'),
        LoadImageText(),
        shuffle=False,
        metainfo=dict(classes=['owl', 'cat']),
        num_samples=3)
    assert dataset[0]['tags'] == [0, 1]
    assert dataset.metainfo['classes'] == ('owl', 'cat')


def test_the_summary_of_a_run_reads_no_shard(tmp_path, monkeypatch):
    (tmp_path / 'a.tar').write_bytes(
        shard_bytes({
            'a.png': b'',
            'a.txt': b'broken',
            'b.png': png(2),
            'b.txt': b'good'
        }))
    made = loader(
        stream(str(tmp_path / 'a.tar'), LoadImageText(), num_samples=8))
    assert {c for batch in captions(made, 1) for c in batch} == {'good'}
    texts = []
    monkeypatch.setattr(
        'mmdet_clim.engine.hooks.unreadable_images_hook.print_log',
        lambda text, **kwargs: texts.append(text))
    (tmp_path / 'a.tar').unlink()
    UnreadableImagesHook().after_train(SimpleNamespace(train_dataloader=made))
    text, = texts
    assert 'of 8 samples could not be read and were replaced' in text
    assert text.endswith('replaced')


def test_arguments_that_do_not_fit(shards, tmp_path):
    for options, message in ((dict(num_samples=0), 'num_samples'),
                             (dict(buffer_size=1.5), 'buffer_size'),
                             (dict(shards=[]), 'shards: .*got none'), (dict(
                                 vocabulary=['cat'],
                                 metainfo=dict(classes=['cat'])), 'got both')):
        with pytest.raises(ValueError, match=message):
            stream(options.pop('shards', shards), **options)
    with pytest.raises(FileNotFoundError, match='none.tar'):
        stream(str(tmp_path / 'none.tar'))
    few = loader(stream(str(tmp_path / '[01].tar')), ranks=3)
    with pytest.raises(
            UnreadableImageError, match='each of 3 workers .*got 2'):
        next(iter(few))


def test_it_pickles_also_when_it_has_read(shards):
    dataset = stream(shards)
    first = [dataset[i]['captions'] for i in range(3)]
    copy = pickle.loads(pickle.dumps(dataset))
    assert [copy[i]['captions'] for i in range(3)] == first
    assert Counter(map(tuple, first)).most_common(1)[0][1] == 1
