# Licensed under the Apache License, Version 2.0.
import pytest
import torch
from torch.nn import functional as F

from mmdet_clim.models.clip_refinement import BatchMosaic
from mmdet_clim.models.clip_refinement.batch_mosaic import choose_grids

THREE = ((2, 2), (3, 3), (4, 4))


@pytest.mark.parametrize(
    'grids, images, whole, expected',
    [
        (THREE, 32, 0, list(THREE)),  # 29 tiles, three whole
        (THREE, 29, 0, list(THREE)),  # nothing left over
        (THREE, 32, 3, list(THREE)),
        (THREE, 38, 0, [*THREE, (2, 2), (2, 2)]),  # nine left: 2x2 comes first
        (((2, 2), ), 13, 2, [(2, 2), (2, 2)]),  # one left of a third
        (((1, 3), (2, 1)), 9, 0, [(1, 3), (2, 1), (1, 3)]),
        ((), 5, 0, []),
    ])
def test_which_mosaics_a_batch_makes(grids, images, whole, expected):
    assert choose_grids(grids, images, whole) == expected


def test_a_batch_too_small_says_how_many_are_missing():
    with pytest.raises(ValueError, match='at least 32 images, got 20: 12 '):
        choose_grids(THREE, 20, 3)


@pytest.mark.parametrize('wrong, match', [
    (dict(grids=((0, 2), )), 'grids'),
    (dict(grids=((2, 2, 2), )), 'grids'),
    (dict(num_whole=-1), 'num_whole'),
    (dict(size=(0, 8)), 'size'),
    (dict(size=(8, 8, 8)), 'size'),
])
def test_arguments_out_of_range(wrong, match):
    with pytest.raises(ValueError, match=match):
        BatchMosaic(**wrong)


def test_a_mosaic_is_its_images_laid_out_and_resized():
    images = torch.rand(8, 3, 24, 36)
    sizes = [(24, 36), (24, 30), (12, 36), (24, 36), (20, 20), (24, 36)]
    mosaics, rois = BatchMosaic(((2, 3), ))(images, sizes + [(24, 36)] * 2)
    rows = [torch.cat(list(images[i:i + 3]), 2) for i in (0, 3)]
    expected = F.interpolate(
        torch.cat(rows, 1)[None],
        size=(24, 36),
        mode='bicubic',
        antialias=True)
    torch.testing.assert_close(mosaics, expected)
    # Cells of 12 x 12 pixels; by hand.
    assert rois.tolist() == [
        [0, 0, 0, 12, 12],
        [0, 12, 0, 22, 12],
        [0, 24, 0, 36, 6],
        [0, 0, 12, 12, 24],
        pytest.approx([0, 12, 12, 12 + 20 / 3, 22]),
        [0, 24, 12, 36, 24],
    ]


@pytest.mark.parametrize(
    'grid, image, size',
    [
        ((2, 2), (140, 30), None),  # bands of 64, 64 and 12 rows
        ((3, 1), (70, 24), (20, 70)),
        ((2, 3), (100, 9), (50, 200)),  # as high as it was, and wider
        ((3, 2), (50, 8), (16, 149)),  # rows that fall between
    ])
def test_a_mosaic_of_many_rows_is_resized_as_a_whole(grid, image, size):
    """Whatever part of it is at work at a time."""
    rows, cols = grid
    torch.manual_seed(0)
    images = torch.rand(rows * cols, 3, *image)
    mosaic, = BatchMosaic((grid, ), size=size)(images,
                                               [image] * (rows * cols)).mosaics
    whole = torch.cat([
        torch.cat(list(images[row * cols:(row + 1) * cols]), 2)
        for row in range(rows)
    ], 1)
    height, width = image if size is None else size[::-1]
    shrinks = height < whole.shape[1] or width < whole.shape[2]
    torch.testing.assert_close(
        mosaic,
        F.interpolate(
            whole[None],
            size=(height, width),
            mode='bicubic',
            antialias=shrinks)[0])


def test_tiles_of_one_colour_stay_in_their_regions():
    images = torch.arange(9.).view(9, 1, 1, 1).expand(9, 3, 48, 48)
    mosaics, rois = BatchMosaic(((3, 3), ))(images, [(48, 48)] * 9)
    for number, (_, x1, y1, x2, y2) in enumerate(rois.long().tolist()):
        inner = mosaics[0, :, y1 + 3:y2 - 3, x1 + 3:x2 - 3]
        torch.testing.assert_close(inner, torch.full_like(inner, number))


def test_two_mosaics_are_numbered_and_grids_may_not_divide_the_size():
    mosaics, rois = BatchMosaic(((1, 2), (3, 1)))(torch.rand(5, 3, 32, 32),
                                                  [(32, 32)] * 5)
    assert mosaics.shape == (2, 3, 32, 32)
    assert rois[:, 0].tolist() == [0, 0, 1, 1, 1]
    torch.testing.assert_close(rois[3, 1:],
                               torch.tensor([0, 32 / 3, 32, 64 / 3]))


def test_without_grids_there_is_no_mosaic():
    mosaics, rois = BatchMosaic(())(torch.rand(2, 3, 8, 8), [(8, 8)] * 2)
    assert mosaics.shape == (0, 3, 8, 8) and rois.shape == (0, 5)


def test_a_mosaic_of_another_size_than_its_images():
    """REFERENCE.md, section 4: regions are the whole cells; by hand."""
    images = torch.rand(29, 3, 14, 14)
    mosaics, rois = BatchMosaic(THREE, size=(64, 64))(images, [(14, 14)] * 29)
    assert mosaics.shape == (3, 3, 64, 64) and rois.shape == (29, 5)
    assert rois[:, 0].tolist() == [0] * 4 + [1] * 9 + [2] * 16
    cells = [[64 / n * c, 64 / n * r, 64 / n * (c + 1), 64 / n * (r + 1)]
             for n in (2, 3, 4) for r in range(n) for c in range(n)]
    torch.testing.assert_close(rois[:, 1:], torch.tensor(cells))
    rows = [torch.cat(list(images[i:i + 3]), 2) for i in (4, 7, 10)]
    expected = F.interpolate(
        torch.cat(rows, 1)[None], size=(64, 64), mode='bicubic')
    torch.testing.assert_close(mosaics[1:2], expected)


def test_a_mosaic_that_is_not_square_and_images_that_are_padded():
    images = torch.rand(2, 3, 10, 20)
    mosaics, rois = BatchMosaic(((1, 2), ), size=(80, 30))(images, [(10, 20),
                                                                    (5, 10)])
    assert mosaics.shape == (1, 3, 30, 80)
    # An image of 20 x 10 is 40 x 30 in its cell.
    assert rois.tolist() == [[0, 0, 0, 40, 30], [0, 40, 0, 60, 15]]


def test_without_grids_a_size_changes_nothing():
    mosaics, rois = BatchMosaic((), size=(6, 4))(torch.rand(2, 3, 8, 8),
                                                 [(8, 8)] * 2)
    assert mosaics.shape == (0, 3, 4, 6) and rois.shape == (0, 5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(
    'grid, image, size',
    [
        ((4, 4), (32, 40), None),
        ((3, 3), (40, 32), None),  # cells that begin between pixels
        ((2, 3), (50, 45), (97, 61)),  # by 1.64 and 1.39
        ((1, 3), (40, 50), (60, 90)),  # rows grow, columns shrink
        ((3, 1), (300, 2), (7, 5)),  # a row of the result of many tiles
        ((2, 2), (1, 1), (1, 1)),
    ])
def test_shrinking_on_a_cpu_is_torchs_own(grid, image, size, dtype):
    """Products with torch's weights, whatever autocast would make of them."""
    torch.manual_seed(0)
    rows, cols = grid
    images = torch.rand(rows * cols, 3, *image, dtype=dtype)
    with torch.autocast('cpu', torch.bfloat16):
        mosaic, = BatchMosaic(
            (grid, ), size=size)(images, [image] * (rows * cols)).mosaics
    expected = F.interpolate(
        torch.cat([torch.cat(list(row), 2) for row in images.split(cols)],
                  1)[None],
        size=image if size is None else size[::-1],
        mode='bicubic',
        antialias=True)
    assert mosaic.dtype == dtype
    torch.testing.assert_close(mosaic, expected[0], rtol=1e-5, atol=1e-6)
