# Licensed under the Apache License, Version 2.0.
"""Decoding of good and bad image files, against OpenCV and Pillow."""
import os
import runpy
import subprocess
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, features

from mmdet_clim.datasets import UnreadableImageError, decode_image, read_image
from mmdet_clim.datasets.images import image_size, read_header


def textured(width, height):
    """A smooth colour image, so that JPEG loses little."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x * 255 / width, y * 255 / height, 0 * x + 90],
                    -1).astype(np.uint8)


def encode(image, suffix='.jpg'):
    return cv2.imencode(suffix, image)[1].tobytes()


def pillow_bytes(image, **options):
    buffer = BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.webp', '.tiff'])
def test_every_format_is_what_opencv_reads(suffix):
    data = encode(textured(33, 21), suffix)
    image, full = decode_image(data)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(image, expected)
    assert full == (21, 33)


@pytest.mark.parametrize(
    'scale, expected',
    [
        (None, (480, 640)),
        ((400, 400), (480, 640)),  # a half would be 320 wide, too few
        ((320, 320), (240, 320)),  # a half is exactly enough
        ((200, 200), (240, 320)),
        ((160, 400), (120, 160)),
        ((81, 81), (120, 160)),
        ((10, 10), (60, 80)),  # an eighth is the least
        ((9000, 10), (60, 80)),  # the height limits
    ])
def test_a_jpeg_is_decoded_at_the_smallest_size_that_serves(scale, expected):
    image, full = decode_image(encode(textured(640, 480)), scale)
    assert image.shape == (*expected, 3)
    assert full == (480, 640)


def test_grayscale_and_sixteen_bits_and_alpha_become_three_channels():
    gray = np.tile(np.arange(32, dtype=np.uint8) * 8, (8, 1))
    for data in (encode(gray, '.jpg'), encode(gray, '.png'),
                 encode(gray.astype(np.uint16) * 257, '.png')):
        image, _ = decode_image(data)
        assert image.shape == (8, 32, 3) and image.dtype == np.uint8
        assert np.abs(image.astype(int) - gray[..., None]).max() <= 4
    alpha = np.dstack([textured(9, 7), np.full((7, 9), 128, np.uint8)])
    assert np.array_equal(
        decode_image(encode(alpha, '.png'))[0], textured(9, 7))


def test_cmyk_has_the_colours_that_pillow_sees():
    rgb = Image.new('RGB', (16, 16), (200, 60, 20))
    data = pillow_bytes(rgb.convert('CMYK'), format='JPEG', quality=95)
    image, _ = decode_image(data)
    assert np.abs(image.reshape(-1, 3).mean(0) - (20, 60, 200)).max() < 6


@pytest.mark.parametrize('scale, expected', [((480, 160), (160, 120)),
                                             ((160, 480), (320, 240)),
                                             ((60, 80), (80, 60))])
def test_a_rotated_jpeg_is_reduced_by_its_upright_size(scale, expected):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored as 640x480, shown as 480x640
    data = pillow_bytes(
        Image.fromarray(textured(640, 480)), format='JPEG', exif=exif)
    image, full = decode_image(data, scale)
    assert image.shape[:2] == expected and full == (640, 480)


def test_exif_rotation_is_applied_also_at_a_reduced_size():
    picture = Image.fromarray(textured(640, 480)[..., ::-1])
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    data = pillow_bytes(picture, format='JPEG', exif=exif)
    assert decode_image(data)[0].shape == (640, 480, 3)
    image, full = decode_image(data, (100, 100))
    assert image.shape == (160, 120, 3)
    assert full == (640, 480)


def test_one_pixel_and_one_row():
    for suffix in ('.jpg', '.png'):
        assert decode_image(encode(textured(1, 1), suffix),
                            (400, 400))[0].shape == (1, 1, 3)
    assert decode_image(encode(textured(3000, 1)),
                        (400, 400))[0].shape == (1, 750, 3)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.webp', '.tiff'])
@pytest.mark.parametrize('share', [0.0, 0.02, 0.5, 0.95])
def test_a_file_cut_short_is_unreadable_and_not_half_grey(suffix, share):
    noise = np.random.RandomState(0).randint(0, 255, (40, 60, 3), np.uint8)
    data = encode(noise, suffix)
    with pytest.raises(UnreadableImageError):
        decode_image(data[:int(len(data) * share)])


def test_a_progressive_jpeg_cut_between_its_scans_is_unreadable():
    noise = np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8)
    data = pillow_bytes(
        Image.fromarray(noise), format='JPEG', progressive=True)
    assert decode_image(data)[0].shape == (64, 64, 3)
    with pytest.raises(UnreadableImageError, match='cut short'):
        decode_image(data[:-2])


def test_the_end_of_an_embedded_thumbnail_is_not_the_end_of_the_image():
    data = encode(textured(64, 48))
    thumbnail = encode(textured(8, 8))
    length = (len(thumbnail) + 2).to_bytes(2, 'big')
    data = data[:2] + b'\xff\xe1' + length + thumbnail + data[2:]
    assert decode_image(data)[0].shape == (48, 64, 3)
    with pytest.raises(UnreadableImageError, match='cut short'):
        decode_image(data[:-20])


@pytest.mark.parametrize('data', [
    b'', b'\xff\xd8', b'\xff\xd8\xff', b'<html>', b'\xff\xd8\xff\xd9',
    b'\x89PNG\r\n\x1a\n', b'\xff\xd8' + b'\xff\xe0\x00\x00' * 9
])
def test_what_is_no_image_is_unreadable(data):
    with pytest.raises(UnreadableImageError):
        decode_image(data)


def test_a_huge_jpeg_is_decoded_smaller_and_a_huge_png_refused():
    picture = textured(400, 300)
    assert decode_image(
        encode(picture), max_pixels=30_000)[0].shape == (150, 200, 3)
    with pytest.raises(UnreadableImageError, match='400x300 pixels'):
        decode_image(encode(picture), max_pixels=1_000)
    with pytest.raises(UnreadableImageError, match='max_pixels=30000'):
        decode_image(encode(picture, '.png'), max_pixels=30_000)


def test_a_decompression_bomb_is_refused_by_its_header():
    # A PNG header that claims 60000 x 60000 pixels and has none.
    data = bytearray(encode(textured(4, 4), '.png'))
    data[16:24] = (60_000).to_bytes(4, 'big') * 2
    with pytest.raises(UnreadableImageError):
        decode_image(bytes(data))


def test_the_header_gives_the_size_without_decoding():
    assert read_header(encode(textured(33, 21)))[:2] == (33, 21)
    assert read_header(encode(textured(33, 21), '.png'))[:2] == (33, 21)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF', 'AVIF'])
def test_an_image_is_upright_and_as_large_as_is_said(kind, orientation):
    if kind == 'AVIF' and not features.check('avif'):
        pytest.skip('this Pillow has no AVIF')
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = pillow_bytes(
        Image.fromarray(textured(33, 21)), format=kind, exif=exif, quality=95)
    image, full = decode_image(data)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    expected = np.array(upright.convert('RGB'))[..., ::-1]
    assert image.shape == expected.shape and full == image.shape[:2]
    assert np.abs(image.astype(int) - expected).max() <= 2
    assert image_size(data) == image.shape[1::-1]


@pytest.mark.parametrize('name', ['a.eps', 'a.jpg', 'a.png'])
def test_no_other_program_is_started(tmp_path, monkeypatch, name):
    """Pillow would hand it to Ghostscript, whatever it is called."""
    monkeypatch.setattr(subprocess, 'Popen', None)
    monkeypatch.setattr(os, 'system', None)
    data = (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n'
            b'showpage\n%%EOF\n')
    assert Image.open(BytesIO(data)).format == 'EPS'
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnreadableImageError, match='not an image of AVIF'):
        read_image(dict(img_path=str(tmp_path / name)))


@pytest.mark.parametrize('kind', ['ICO', 'PPM', 'TGA', 'JPEG2000', 'PCX'])
def test_formats_of_pillow_that_are_not_ours(kind):
    data = pillow_bytes(Image.fromarray(textured(32, 32)), format=kind)
    for read in (decode_image, image_size):
        with pytest.raises(UnreadableImageError) as caught:
            read(data)
        assert caught.value.reason in ('not an image', 'broken')


def test_samples_without_a_common_range_are_refused():
    grey = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    picture = Image.fromarray(textured(8, 6))
    for data in (pillow_bytes(Image.fromarray(grey), format='TIFF'),
                 pillow_bytes(
                     Image.fromarray((grey * 1e6).astype(np.int32)),
                     format='TIFF'),
                 pillow_bytes(
                     ImageCms.profileToProfile(
                         picture,
                         ImageCms.createProfile('sRGB'),
                         ImageCms.createProfile('LAB'),
                         outputMode='LAB'),
                     format='TIFF')):
        with pytest.raises(UnreadableImageError):
            decode_image(data)


def test_a_few_of_the_inputs_of_the_fuzzer(repository):
    fuzzer = runpy.run_path(str(repository / 'benchmarks/fuzz_images.py'))
    counts, failures = fuzzer['fuzz'](300, seed=1)
    assert failures == [] and sum(counts.values()) == 300
    assert counts['read'] > 10 and len(counts) > 4


@pytest.mark.parametrize('data, reason', [
    (b'', 'not an image'),
    (b'<html>404</html>', 'not an image'),
    (b'\xff\xd8\xff\xe0', 'broken header'),
    (encode(textured(64, 64))[:-40], 'cut short'),
    (encode(np.zeros((8001, 8000), np.uint8), '.png'), 'too large'),
])
def test_the_reason_why_there_is_no_size(data, reason):
    with pytest.raises(UnreadableImageError) as caught:
        image_size(data)
    assert caught.value.reason == reason


def test_read_image_from_a_file_and_from_within_a_shard(tmp_path):
    data = encode(textured(20, 10), '.png')
    (tmp_path / 'a.png').write_bytes(data)
    (tmp_path / 's.tar').write_bytes(b'x' * 512 + data + b'y' * 99)
    shard = dict(
        img_path='s.tar/a.png',
        shard_path=str(tmp_path / 's.tar'),
        shard_offset=512,
        shard_size=len(data))
    for sample in (dict(img_path=str(tmp_path / 'a.png')), shard):
        image, full = read_image(sample)
        assert np.array_equal(image, textured(20, 10)) and full == (10, 20)
    with pytest.raises(UnreadableImageError, match='missing.jpg'):
        read_image(dict(img_path=str(tmp_path / 'missing.jpg')))


@pytest.mark.skipif(
    not features.check('avif'), reason='this Pillow has no AVIF')
def test_a_broken_avif_is_unreadable_wherever_it_is_broken():
    """libavif's errors are no OSErrors; crawled .jpg files may be AVIFs."""
    data = pillow_bytes(Image.fromarray(textured(12, 9)), format='AVIF')
    unreadable = 0
    for position in range(0, len(data), 3):
        broken = data[:position] + b'\xff' + data[position + 1:]
        for function in (decode_image, image_size):
            try:
                function(broken)
            except UnreadableImageError:
                unreadable += 1
    assert unreadable > 50


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'AVIF'])
def test_transparency_is_left_out(kind):
    """A TIFF was darkened by its alpha, and no other format."""
    image = Image.new('RGBA', (16, 12), (200, 100, 50, 128))
    options = dict(quality=100) if kind == 'AVIF' else {}
    decoded, _ = decode_image(pillow_bytes(image, format=kind, **options))
    assert decoded.shape == (12, 16, 3)
    assert np.abs(decoded.astype(int) - (50, 100, 200)).max() <= 3
