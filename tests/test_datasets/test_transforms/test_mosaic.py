# Licensed under the Apache License, Version 2.0.
"""Mosaics against geometry worked out by hand."""
from collections import Counter

import cv2
import numpy as np
import pytest
from mmdet.datasets import MultiImageMixDataset
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_clim.datasets import ImageTextDataset, UnreadableImageError
from mmdet_clim.datasets.transforms import MosaicCLIM
from mmdet_clim.datasets.transforms.mosaic import fit_size
from mmdet_clim.registry import TRANSFORMS

KEYS = {
    'img', 'img_shape', 'ori_shape', 'gt_bboxes', 'gt_bboxes_labels',
    'gt_ignore_flags', 'captions', 'tags', 'image_ids', 'image_keys',
    'mosaic_grid', 'img_id', 'img_path', 'scale_factor', 'flip',
    'flip_direction'
}


def captioned(img_id, width, height):
    """An image of one grey value, its id."""
    return dict(
        img=np.full((height, width, 3), img_id, np.uint8),
        img_id=img_id,
        captions=[f'caption {img_id}'],
        tags=[img_id % 5])


def mixed(*sizes):
    """Samples 1, 2, ... of these sizes, the first holding the others."""
    samples = [captioned(n, w, h) for n, (w, h) in enumerate(sizes, 1)]
    return dict(samples[0], mix_results=samples[1:])


def boxes_of(mosaic):
    assert isinstance(mosaic['gt_bboxes'], HorizontalBoxes)
    return mosaic['gt_bboxes'].tensor.tolist()


def check_pixels(mosaic, pad_val=114):
    """Each box holds the value of its image, everything else the padding."""
    expected = np.full(mosaic['img'].shape, pad_val, np.uint8)
    for value, box in zip(mosaic['image_ids'], boxes_of(mosaic)):
        left, top, right, bottom = map(int, box)
        expected[top:bottom, left:right] = value
    assert np.array_equal(mosaic['img'], expected)


def test_towards_the_middle_lines():
    # Cells of 40 x 40: wide images become 40 x 20, tall ones 10 x 40.
    mosaic = MosaicCLIM(
        grids=[(2, 2)], out_size=(80, 80))(
            mixed((80, 40), (20, 80), (20, 80), (4, 2)))
    assert boxes_of(mosaic) == [
        [0, 20, 40, 40],  # hugs the lower edge of its cell
        [40, 0, 50, 40],  # hugs the left edge
        [30, 40, 40, 80],  # hugs the right edge
        [40, 40, 80, 60],  # enlarged; hugs the upper edge
    ]
    check_pixels(mosaic)


def test_the_middle_of_an_odd_grid_is_centred():
    mosaic = MosaicCLIM(
        grids=[(1, 3)], out_size=(90, 60))(
            mixed(*[(10, 60)] * 3))
    assert boxes_of(mosaic) == [[20, 0, 30, 60], [40, 0, 50, 60],
                                [60, 0, 70, 60]]
    check_pixels(mosaic)


def test_outer_cells_of_four_hug_the_side_that_faces_the_middle():
    mosaic = MosaicCLIM(
        grids=[(4, 1)], out_size=(20, 80))(
            mixed(*[(20, 10)] * 4))
    assert [b[1::2] for b in boxes_of(mosaic)] == [[10, 20], [30, 40],
                                                   [40, 50], [60, 70]]


def published(grid, width, height, seed=0):
    """Left and top of each tile in cells of 40 x 40 pixels."""
    np.random.seed(seed)
    rows, cols = grid
    mosaic = MosaicCLIM(
        grids=[grid], out_size=(40 * cols, 40 * rows), align='published')(
            mixed(*[(width, height)] * (rows * cols)))
    check_pixels(mosaic)
    places = np.array(boxes_of(mosaic))[:, :2].reshape(rows, cols, 2)
    return places[..., 0] % 40, places[..., 1] % 40


def test_published_alignment_of_two_is_towards_the_middle():
    left, top = published((2, 2), 20, 40)
    assert left.tolist() == [[20, 0], [20, 0]] and not top.any()
    left, top = published((2, 2), 40, 20)
    assert top.tolist() == [[20, 20], [0, 0]] and not left.any()


def test_published_alignment_of_three():
    """The middle column anywhere, the middle row up or down."""
    places, ups = Counter(), Counter()
    for seed in range(300):
        left, _ = published((3, 3), 36, 40, seed)
        assert (left[:, 0] == 4).all() and (left[:, 2] == 0).all()
        places.update(left[:, 1].tolist())
        _, top = published((3, 3), 40, 20, seed)
        assert (top[0] == 20).all() and (top[2] == 0).all()
        assert len(set(top[1])) == 1
        ups[top[1, 0]] += 1
    # 900 over five places: 180 expected, standard deviation 12.
    assert set(places) == {0, 1, 2, 3, 4}
    assert all(abs(count - 180) < 60 for count in places.values())
    # 150 expected, standard deviation 9.
    assert set(ups) == {0, 20} and abs(ups[0] - 150) < 45


@pytest.mark.parametrize('grid', [(4, 4), (4, 2), (5, 6)])
def test_published_alignment_of_four_and_more(grid):
    """Columns in pairs, each row up or down."""
    rows, cols = grid
    seen = Counter()
    for seed in range(64):
        left, top = published(grid, 20, 40, seed)
        assert left.tolist() == [[20, 0] * (cols // 2)] * rows
        _, top = published(grid, 40, 20, seed)
        assert all(len(set(row)) == 1 for row in top)
        seen.update(enumerate(top[:, 0]))
    assert set(seen) == {(row, up) for row in range(rows) for up in (0, 20)}
    assert all(12 < count < 52 for count in seen.values())


def test_published_alignment_of_other_grids():
    """One row or column is centred; an odd column has no neighbour."""
    left, top = published((1, 1), 20, 40)
    assert (left, top) == ([[10]], [[0]])
    lefts = {
        tuple(published((1, 5), 20, 40, seed)[0][0])
        for seed in range(99)
    }
    assert {places[:4] for places in lefts} == {(20, 0, 20, 0)}
    assert len({places[4] for places in lefts}) > 10


def test_partners_are_others_with_replacement():
    np.random.seed(0)
    transform = MosaicCLIM(
        grids=[(1, 3)], out_size=(60, 20), cache_size=4, partners='others')
    assert transform(captioned(0, 6, 6))['image_ids'] == [0, 0, 0]  # alone
    ages, twice = Counter(), 0
    for number in range(1, 601):
        mosaic = transform(captioned(number % 251, 6, 6))
        first, *others = mosaic['image_ids']
        assert first == number % 251
        if number > 3:
            ages.update((first - other) % 251 for other in others)
            twice += len(set(others)) == 1
        check_pixels(mosaic)
    # Of the four newest all but the present one: 398 expected each, standard
    # deviation 16; two are the same in a third of 597.
    assert set(ages) == {1, 2, 3}
    assert all(abs(count - 398) < 80 for count in ages.values())
    assert abs(twice - 199) < 60


@pytest.mark.parametrize('align, left', [('top_left', [0, 40]),
                                         ('cell_center', [15, 55]),
                                         ('center', [30, 40])])
def test_alignment(align, left):
    mosaic = MosaicCLIM(
        grids=[(1, 2)], out_size=(80, 40), align=align)(
            mixed((20, 80), (20, 80)))
    assert [b[0] for b in boxes_of(mosaic)] == left
    check_pixels(mosaic)


def test_a_size_that_the_grid_does_not_divide():
    # 100 / 3: edges at 0, 33, 66, 100; 50 / 3: at 0, 16, 33, 50.
    mosaic = MosaicCLIM(
        grids=[(3, 3)], out_size=(100, 50), pad_val=0)(
            mixed(*[(300, 150)] * 9))
    boxes = boxes_of(mosaic)
    # The smallest cell, 33 x 16, takes 32 x 16 of a 2:1 image.
    assert boxes[0] == [1, 0, 33, 16]
    assert boxes[4] == [33, 16, 65, 32]
    assert boxes[8] == [66, 33, 98, 49]
    check_pixels(mosaic, 0)


def test_any_grid_and_row_major_order():
    mosaic = MosaicCLIM(
        grids=[(2, 3)], out_size=(60, 40))(
            mixed(*[(7, 7)] * 6))
    assert mosaic['mosaic_grid'] == (2, 3)
    assert mosaic['image_ids'] == [1, 2, 3, 4, 5, 6]
    assert boxes_of(mosaic) == [[0, 0, 20, 20], [20, 0, 40, 20],
                                [40, 0, 60, 20], [0, 20, 20, 40],
                                [20, 20, 40, 40], [40, 20, 60, 40]]
    check_pixels(mosaic)


def test_keys_and_types():
    mosaic = MosaicCLIM(
        grids=[(2, 2)], out_size=(256, 200))(
            dict(
                mixed((5, 5), (6, 5), (5, 6), (5, 5)),
                flip=True,
                instances=[1]))
    assert set(mosaic) == KEYS
    assert mosaic['img'].shape == (200, 256, 3)
    assert mosaic['img'].dtype == np.uint8
    assert mosaic['img_shape'] == mosaic['ori_shape'] == (200, 256)
    assert mosaic['gt_bboxes_labels'].tolist() == [0] * 4
    assert mosaic['gt_bboxes_labels'].dtype == np.int64
    assert mosaic['gt_ignore_flags'].tolist() == [False] * 4
    assert mosaic['captions'] == [[f'caption {n}'] for n in range(1, 5)]
    assert mosaic['tags'] == [[1], [2], [3], [4]]
    assert mosaic['flip'] is False and mosaic['img_id'] == 1


def test_a_tile_is_one_resize_of_its_image():
    image = np.random.RandomState(0).randint(0, 255, (300, 400, 3), np.uint8)
    mosaic = MosaicCLIM(
        grids=[(1, 2)], out_size=(266, 133))(
            dict(
                captioned(1, 4, 4),
                mix_results=[dict(captioned(2, 4, 4), img=image)]))
    left, top, right, bottom = map(int, boxes_of(mosaic)[1])
    assert (right - left, bottom - top) == (133, 100)
    assert np.array_equal(mosaic['img'][top:bottom, left:right],
                          cv2.resize(image, (133, 100)))


def test_images_of_one_pixel_and_of_one_row():
    mosaic = MosaicCLIM(
        grids=[(1, 2)], out_size=(80, 40))(
            mixed((1, 1), (3000, 1)))
    assert boxes_of(mosaic) == [[0, 0, 40, 40], [40, 19, 80, 20]]
    check_pixels(mosaic)


@pytest.mark.parametrize('size, room, expected', [
    ((640, 480), (400, 400), (400, 300)),
    ((480, 640), (133, 133), (100, 133)),
    ((1, 1), (5, 7), (5, 5)),
    ((3000, 1), (40, 40), (40, 1)),
    ((7, 3), (7, 3), (7, 3)),
])
def test_fit_size(size, room, expected):
    assert fit_size(size, room) == expected


def test_the_first_sample_of_a_cache_is_a_mosaic_already():
    transform = MosaicCLIM(grids=[(2, 2)], out_size=(40, 40), cache_size=3)
    mosaic = transform(captioned(9, 6, 6))
    assert mosaic['image_ids'] == [9] * 4
    assert mosaic['captions'] == [['caption 9']] * 4
    assert set(mosaic) == KEYS
    check_pixels(mosaic)


def test_the_cache_keeps_the_last_images_and_the_newest_is_drawn():
    np.random.seed(0)
    transform = MosaicCLIM(grids=[(1, 2)], out_size=(40, 20), cache_size=3)
    partners = Counter()
    for number in range(300):
        mosaic = transform(captioned(number % 251, 6, 6))
        first, second = mosaic['image_ids']
        assert first == number % 251
        partners[(first - second) % 251] += number >= 3
        check_pixels(mosaic)
    assert set(partners) == {0, 1, 2}
    assert min(partners.values()) > 60


def test_partners_differ_once_the_cache_holds_enough():
    transform = MosaicCLIM(grids=[(2, 2)], out_size=(40, 40), cache_size=8)
    for number in range(12):
        mosaic = transform(captioned(number, 6, 6))
        partners = mosaic['image_ids'][1:]
        assert len(partners) == 3
        if number >= 2:
            assert len(set(partners)) == 3


def test_one_seed_gives_one_mosaic():

    def run(seed):
        np.random.seed(seed)
        transform = MosaicCLIM(out_size=(64, 64), tile_size=(16, 16))
        return [transform(captioned(n, 20, 10)) for n in range(20)]

    first, again, other = run(1), run(1), run(2)
    for one, two in zip(first, again):
        assert np.array_equal(one['img'], two['img'])
        assert one['image_ids'] == two['image_ids']
    assert [m['image_ids'] for m in first] != [m['image_ids'] for m in other]


def test_grids_come_by_their_weights():
    np.random.seed(0)
    transform = MosaicCLIM(
        grids=[(1, 1), (1, 2), (2, 1), (3, 1)],
        grid_weights=[2, 1, 0, 1],
        out_size=(6, 6),
        cache_size=2)
    seen = Counter(
        transform(captioned(1, 2, 2))['mosaic_grid'] for _ in range(2000))
    assert (2, 1) not in seen
    assert abs(seen[1, 1] - 1000) < 100 and abs(seen[1, 2] - 500) < 80


def test_others_leave_as_a_mosaic_of_one():
    np.random.seed(0)
    transform = MosaicCLIM(
        grids=[(2, 2)], tile_size=(8, 8), out_size=(40, 40), prob=0.5)
    image = np.random.randint(0, 255, (40, 40, 3), np.uint8)
    mosaics = [
        transform(dict(captioned(1, 2, 2), img=image)) for _ in range(200)
    ]
    single = [m for m in mosaics if m['mosaic_grid'] == (1, 1)]
    assert 70 < len(single) < 130
    for mosaic in single:
        assert set(mosaic) == KEYS
        assert boxes_of(mosaic) == [[0, 0, 40, 40]]
        # At its full size, not enlarged from the cache.
        assert np.array_equal(mosaic['img'], image)


def test_the_cache_keeps_images_within_the_tile_size():
    transform = MosaicCLIM(tile_size=(30, 30), out_size=(80, 80), cache_size=2)
    # Cells of 40, 26 and 20 pixels; images of at most 30, 26 and 20.
    wide = 30 * 15 + 26 * 13 + 20 * 10
    transform(captioned(1, 600, 300))
    assert transform.cache_bytes == 3 * wide
    transform(captioned(2, 10, 8))
    assert transform.cache_bytes == 3 * (wide + 10 * 8)
    transform(captioned(3, 30, 30))
    assert transform.cache_bytes == 3 * (10 * 8 + 30**2 + 26**2 + 20**2)
    # A view of a larger image does not keep it alive.
    large = captioned(4, 400, 400)
    transform(dict(large, img=large['img'][:20, :20]))
    assert all(image.base is None for tile in transform._cached_tiles.values()
               for image in tile.ready.values())


def test_a_partner_looks_as_if_it_were_resized_from_its_tile_size():
    image = np.random.RandomState(0).randint(0, 255, (300, 400, 3), np.uint8)
    transform = MosaicCLIM(
        grids=[(3, 3)], tile_size=(100, 100), out_size=(100, 100))
    mosaic = transform(dict(captioned(1, 4, 4), img=image))
    expected = cv2.resize(cv2.resize(image, (100, 75)), (33, 25))
    for box in boxes_of(mosaic):
        left, top, right, bottom = map(int, box)
        assert np.array_equal(mosaic['img'][top:bottom, left:right], expected)


@pytest.mark.parametrize(
    'arguments, expected',
    [
        # 96 * 2**20 / (3 * (400**2 + 266**2 + 200**2)) = 123.9
        (dict(), 123),
        (dict(tile_size=(900, 900)), 123),
        # 96 * 2**20 / (3 * 400 * 400) = 209.7
        (dict(grids=[(2, 2)]), 209),
        # 2048 would fit.
        (dict(tile_size=(128, 128)), 1024),
        (dict(tile_size=(9000, 9000), out_size=(18000, 18000)), 1),
    ])
def test_the_default_cache_stays_below_100_mib(arguments, expected):
    assert MosaicCLIM(**arguments).cache_size == expected


def test_what_the_caller_does_with_a_mosaic_leaves_the_cache_alone():
    transform = MosaicCLIM(grids=[(1, 1)], out_size=(6, 6), cache_size=1)
    mosaic = transform(captioned(5, 6, 6))
    mosaic['img'][:] = 0
    mosaic['captions'][0].append('more')
    again = MosaicCLIM(grids=[(1, 2)], out_size=(12, 6), cache_size=2)
    again(captioned(5, 6, 6))['img'][:] = 0
    assert (again._cached_tiles[
        0,
    ].ready[1, 2] == 5).all()
    assert transform._cached_tiles[
        0,
    ].captions == ['caption 5']


def test_with_the_multi_image_dataset_of_mmdet(caption_file):
    folder = str(caption_file.parent / 'images')

    def build(pipeline, **kwargs):
        return MultiImageMixDataset(
            ImageTextDataset(
                str(caption_file),
                data_prefix=dict(img=folder),
                pipeline=pipeline), [
                    dict(
                        type='mmdet_clim.MosaicCLIM',
                        grids=[(1, 2), (2, 2), (2, 1)],
                        out_size=(80, 60),
                        **kwargs),
                    dict(type='mmdet_clim.PackRegionTextInputs')
                ])

    np.random.seed(0)
    for pipeline in ([dict(type='mmdet_clim.LoadImageText')], []):
        dataset = build(pipeline)
        grids = Counter()
        for number in range(40):
            packed = dataset[number % 5]
            sample = packed['data_samples']
            grids[sample.mosaic_grid] += 1
            assert sample.image_ids[0] == 100 + number % 5
            # Blue is the number of the file.
            for image_id, box in zip(sample.image_ids,
                                     sample.gt_instances.bboxes.int()):
                left, top, right, bottom = box.tolist()
                tile = packed['inputs'][0, top:bottom, left:right]
                assert (tile == image_id - 100).all()
        assert set(grids) == {(1, 2), (2, 2), (2, 1)}
        assert min(grids.values()) > 5
    assert build([], prob=0.0)[2]['data_samples'].mosaic_grid == (1, 1)


def test_fewer_images_than_a_mosaic_needs(change_captions):
    path = change_captions(lambda c: c.update(images=c['images'][:1]))
    source = ImageTextDataset(
        str(path), data_prefix=dict(img=str(path.parent / 'images')))
    dataset = MultiImageMixDataset(source, [
        dict(type='mmdet_clim.MosaicCLIM', grids=[(3, 3)], out_size=(90, 90))
    ])
    assert dataset[0]['image_ids'] == [100] * 9


def test_files_are_decoded_at_the_size_of_their_cells(tmp_path, write_image):
    path = str(write_image(tmp_path / 'a.jpg', 640, 480, (7, 7, 7)))
    sample = dict(img_path=path, img_id=7, captions=['x'])
    transform = MosaicCLIM(
        grids=[(2, 2)], tile_size=(64, 64), out_size=(256, 256))
    mosaic = transform(dict(sample, mix_results=[dict(sample)] * 3))
    assert boxes_of(mosaic)[3] == [128, 128, 256, 224]
    check_pixels(mosaic)
    # And with the cache.
    check_pixels(transform(dict(sample)))
    assert transform.cache_bytes == 3 * 64 * 48


def test_an_unreadable_file_is_replaced_by_the_next_of_the_mosaic(
        tmp_path, write_image):
    good = dict(
        img_path=str(write_image(tmp_path / 'a.png', 8, 8, (7, 7, 7))),
        img_id=7,
        captions=['good'])
    bad = dict(img_path=str(tmp_path / 'no.png'), img_id=8, captions=['bad'])
    transform = MosaicCLIM(grids=[(1, 3)], out_size=(24, 8))
    mosaic = transform(dict(bad, mix_results=[dict(good), dict(bad)]))
    assert mosaic['image_ids'] == [7, 7, 7]
    assert mosaic['captions'] == [['good']] * 3
    assert mosaic['img_path'] == good['img_path']
    check_pixels(mosaic)
    assert transform.unreadable.count == 2
    with pytest.raises(UnreadableImageError, match='none of the 3 images'):
        transform(dict(bad, mix_results=[dict(bad), dict(bad)]))


@pytest.mark.parametrize('arguments', [
    dict(grids=[]),
    dict(grids=[(0, 2)]),
    dict(grids=[(2, )]),
    dict(grid_weights=[1]),
    dict(grid_weights=[0, 0, 0]),
    dict(grid_weights=[1, -1, 1]),
    dict(tile_size=(0, 4)),
    dict(out_size=(4, 0)),
    dict(out_size=(3, 800)),
    dict(align='left'),
    dict(partners='all'),
    dict(pad_val=256),
    dict(cache_size=0),
    dict(prob=1.5),
])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        TRANSFORMS.build(dict(type='mmdet_clim.MosaicCLIM', **arguments))


def test_bad_samples():
    transform = MosaicCLIM(grids=[(1, 2), (2, 2)], out_size=(8, 8))
    with pytest.raises(KeyError, match='captions'):
        transform(dict(img=np.zeros((2, 2, 3), np.uint8), img_id=1))
    with pytest.raises(KeyError, match='img_path'):
        transform(dict(captions=['a'], img_id=1))
    for image in (np.zeros((2, 2), np.uint8), np.zeros(
        (2, 2, 3)), np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(ValueError, match=r'\(H, W, 3\) uint8'):
            transform(dict(img=image, img_id=1, captions=['a']))
    with pytest.raises(ValueError, match=r'one less than \[2, 4\]'):
        transform(mixed((2, 2), (2, 2), (2, 2)))
