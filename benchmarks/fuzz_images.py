# Licensed under the Apache License, Version 2.0.
"""Broken image files: each is read, or is unreadable, and nothing else.

Small files of every format are changed at random, their headers above all,
and read as training, preparation and the page read them, in a process with
little memory. It prints what became of them, and fails where an input raised
another error than ``UnreadableImageError``, ended the process, gave an image
of another size than ``image_size`` says, or took longer than a few seconds.

    python benchmarks/fuzz_images.py --inputs 50000
"""
import argparse
import multiprocessing
import resource
import sys
import time
import warnings
from collections import Counter
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, features

from mmdet_clim.datasets.images import (
    UnreadableImageError,
    decode_image,
    image_size,
)

MAX_PIXELS = 250_000
#: Of address space beside what the process has when it starts.
MEMORY = 1 << 30
SLOW = 5.0
#: What sizes, counts and offsets of headers are set to.
EXTREMES = (0, 1, 127, 128, 255, 256, 32_767, 65_535, 65_536, 2**31 - 1,
            2**32 - 1)


def seeds() -> dict[str, bytes]:
    """Small whole files of every format, by what they are."""
    y, x = np.mgrid[:24, :31]
    rgb = Image.fromarray(
        np.stack([x * 8, y * 10, (x * y) % 256], -1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    forms = dict(
        jpeg=(rgb, dict(format='JPEG', exif=exif)),
        jpeg_progressive=(rgb, dict(format='JPEG', progressive=True)),
        jpeg_grey=(rgb.convert('L'), dict(format='JPEG')),
        jpeg_cmyk=(rgb.convert('CMYK'), dict(format='JPEG')),
        png=(rgb, dict(format='PNG', exif=exif)),
        png_palette=(rgb.convert('P'), dict(format='PNG', transparency=0)),
        png_alpha=(rgb.convert('RGBA'), dict(format='PNG')),
        png_bits=(rgb.convert('1'), dict(format='PNG')),
        apng=(rgb,
              dict(format='PNG', save_all=True,
                   append_images=[rgb.rotate(9)])),
        gif=(rgb.convert('P'), dict(format='GIF')),
        gif_frames=(rgb.convert('P'),
                    dict(
                        format='GIF',
                        save_all=True,
                        append_images=[rgb.rotate(9).convert('P')])),
        bmp=(rgb, dict(format='BMP')),
        bmp_palette=(rgb.convert('P'), dict(format='BMP')),
        tiff=(rgb, dict(format='TIFF', exif=exif)),
        tiff_lzw=(rgb, dict(format='TIFF', compression='tiff_lzw')),
        tiff_deflate=(rgb.convert('RGBA'),
                      dict(format='TIFF', compression='tiff_adobe_deflate')),
        tiff_jpeg=(rgb, dict(format='TIFF', compression='jpeg')),
        tiff_fax=(rgb.convert('1'), dict(format='TIFF', compression='group4')),
        webp=(rgb, dict(format='WEBP', exif=exif)),
        webp_lossless=(rgb.convert('RGBA'), dict(format='WEBP',
                                                 lossless=True)),
        webp_frames=(rgb,
                     dict(
                         format='WEBP',
                         save_all=True,
                         append_images=[rgb.rotate(9)])))
    if features.check('avif'):
        forms['avif'] = rgb, dict(format='AVIF', speed=10, exif=exif)
    found = {}
    for name, (image, options) in forms.items():
        buffer = BytesIO()
        image.save(buffer, **options)
        found[name] = buffer.getvalue()
    deep = np.array(rgb).astype(np.uint16) * 257
    found['png_16_bits'] = cv2.imencode('.png', deep)[1].tobytes()
    found['tiff_16_bits'] = cv2.imencode('.tiff', deep[..., 0])[1].tobytes()
    return found


def mutated(files: list[bytes], rng: np.random.Generator) -> bytes:
    """One of the files, changed in one to eight places.

    Args:
        files (list[bytes]): To choose from.
        rng (np.random.Generator): Decides everything.
    """
    data = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 9)):
        if not data:
            break
        # Half of them within the first bytes, where the header is.
        end = len(data) if rng.random() < .5 else min(len(data), 200)
        place = int(rng.integers(end))
        kind = rng.integers(6)
        if kind == 0:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[place] = int(rng.integers(256))
        elif kind == 2:
            width = int(rng.choice([1, 2, 4]))
            value = EXTREMES[rng.integers(len(EXTREMES))] % 256**width
            order = 'big' if rng.random() < .5 else 'little'
            data[place:place + width] = value.to_bytes(width, order)
        elif kind == 3:
            del data[place:place + int(rng.integers(1, 40))]
        elif kind == 4:
            other = files[rng.integers(len(files))]
            start = int(rng.integers(len(other)))
            data[place:place] = other[start:start + int(rng.integers(1, 40))]
        elif rng.random() < .3:
            del data[place:]
    return bytes(data)


def outcome(data: bytes) -> str:
    """What reading a file comes to.

    Args:
        data (bytes): The file.

    Returns:
        str: 'read', or the reason why it is unreadable.

    Raises:
        AssertionError: If the image has another size than is said.
    """
    try:
        size = image_size(data, MAX_PIXELS)
        image, full = decode_image(data, max_pixels=MAX_PIXELS)
    except UnreadableImageError as error:
        assert '\n' not in str(error).strip(), f'not one line: {error}'
        return error.reason
    assert image.dtype == np.uint8 and image.shape[2:] == (3, )
    # A size that OpenCV reduces is the only other one.
    assert size == tuple(full[::-1]), f'{size} is said, {full[::-1]} read'
    return 'read'


def _run(first: int, inputs: int, seed: int, at, results) -> None:
    warnings.simplefilter('ignore')
    size = int(Path('/proc/self/statm').read_text().split()[0])
    limit = size * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    files = list(seeds().values())
    counts, failures = Counter(), []
    for number in range(first, inputs):
        at.value = number
        data = mutated(files, np.random.default_rng((seed, number)))
        start = time.process_time()
        try:
            counts[outcome(data)] += 1
        except Exception as error:
            failures.append((number, f'{type(error).__name__}: {error}'))
        if time.process_time() - start > SLOW:
            failures.append((number, f'took more than {SLOW:g} s of CPU'))
    results.put((counts, failures))


def fuzz(inputs: int, seed: int) -> tuple[Counter, list[tuple[int, str]]]:
    """Read many broken files.

    Args:
        inputs (int): How many.
        seed (int): Of the files.

    Returns:
        tuple[Counter, list]: How many of each outcome, and the numbers of
        the inputs that failed, with the reason.
    """
    context = multiprocessing.get_context('fork')
    at, results = context.Value('q', 0), context.SimpleQueue()
    process = context.Process(target=_run, args=(0, inputs, seed, at, results))
    process.start()
    process.join()
    if process.exitcode:
        return Counter(), [(at.value, f'exit code {process.exitcode}')]
    return results.get()


def main() -> None:
    """Read them and print."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--inputs', type=int, default=50_000)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    counts, failures = fuzz(args.inputs, args.seed)
    for name, count in counts.most_common():
        print(f'{count:8} {name}')
    print(f'{args.inputs} inputs in {time.perf_counter() - start:.0f} s, '
          f'{len(failures)} failures')
    for number, what in failures:
        print(f'input {number}: {what}')
    sys.exit(1 if failures else 0)


if __name__ == '__main__':
    main()
