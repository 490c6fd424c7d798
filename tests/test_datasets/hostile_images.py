# Licensed under the Apache License, Version 2.0.
"""Small files that claim, or take, far more than they are."""
import struct
import zlib
from io import BytesIO

from PIL import Image, features


def encoded(image, **options):
    buffer = BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def compressed_zeros(megabytes):
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    return b''.join(packer.compress(zeros)
                    for _ in range(megabytes)) + packer.flush()


def jpeg(width, height, kind=0xC2, components=3, scans=1, data=200):
    """Segments of a JPEG with scans of zero bits; C2: progressive."""

    def segment(marker, content):
        return struct.pack('>BBH', 255, marker, len(content) + 2) + content

    table = bytes([1] + [0] * 15) + b'\0'
    in_scan = components if kind == 0xC2 else 1
    frame = struct.pack('>BHHB', 8, height, width, components)
    frame += b''.join(bytes([c + 1, 0x11, 0]) for c in range(components))
    scan = bytes([in_scan])
    scan += b''.join(bytes([c + 1, 0]) for c in range(in_scan))
    scan += bytes(3) if kind == 0xC2 else bytes([0, 63, 0])
    return b''.join([
        b'\xff\xd8',
        segment(0xDB, bytes([0] + [1] * 64)),
        segment(kind, frame),
        segment(0xC4, b'\0' + table),
        segment(0xC4, b'\x10' + table),
        (segment(0xDA, scan) + bytes(data)) * scans, b'\xff\xd9'
    ])


def chunk(kind, content):
    return struct.pack('>I', len(content)) + kind + content + struct.pack(
        '>I', zlib.crc32(kind + content))


def png_header(width, height, depth=8, kind=2):
    return b'\x89PNG\r\n\x1a\n' + chunk(
        b'IHDR', struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, 0))


def tiff(tags, data=bytes(64)):
    """Tags as {number: (type, count, value)}; the data lies behind them."""
    entries = b''.join(
        struct.pack('<HHII', tag, *tags[tag]) for tag in sorted(tags))
    return struct.pack('<2sHIH', b'II', 42, 8,
                       len(tags)) + entries + bytes(4) + data


def grey_tiff(**changes):
    tags = dict(
        t256=(3, 1, 64),
        t257=(3, 1, 64),
        t258=(3, 1, 8),
        t259=(3, 1, 8),
        t262=(3, 1, 1),
        t277=(3, 1, 1),
        t278=(4, 1, 64),
        t273=(4, 1, 200),
        t279=(4, 1, 64))
    tags.update(changes)
    return tiff({
        int(key[1:]): value
        for key, value in tags.items() if value is not None
    })


def bmp(width, height, compression=0, colours=0, data=bytes(100)):
    return struct.pack('<2sIHHI', b'BM', 54 + len(data), 0, 0, 54) + \
        struct.pack('<IiiHHIIiiII', 40, width, height, 1, 8, compression,
                    len(data), 1, 1, colours, 0) + data


def hostile_images():
    """Files by what they are.

    Returns:
        dict[str, bytes]: None of them may take memory for more than a million
        pixels, whatever they claim.
    """
    small = Image.new('RGB', (8, 8))
    png = encoded(small, format='PNG')
    start = png.index(b'IDAT') - 4
    bomb = compressed_zeros(200)
    text = chunk(b'zTXt', b'k\0\0' + compressed_zeros(1)) * 300
    gif = encoded(small.convert('P'), format='GIF')
    frame = gif.index(b',')
    webp = encoded(
        Image.new('RGB', (64, 64)),
        format='WEBP',
        save_all=True,
        append_images=[Image.new('RGB', (64, 64), (9, 9, 9))])
    canvas = webp.index(b'VP8X') + 12
    tiled = dict(
        t273=None, t278=None, t279=None, t324=(4, 1, 200), t325=(4, 1, 64))
    files = {
        'progressive JPEG':
        jpeg(30_000, 30_000),
        'progressive JPEG, four times the pixels':
        jpeg(2000, 2000, data=40_000),
        'JPEG in several scans':
        jpeg(30_000, 30_000, 0xC0),
        'JPEG of 200 scans':
        jpeg(990, 990, scans=200, data=9000),
        'JPEG of 65500 pixels':
        jpeg(65_500, 65_500, 0xC0, 1),
        'JPEG without its blocks':
        jpeg(7900, 7900, 0xC0, 1),
        'arithmetic JPEG':
        jpeg(900, 900, 0xCA),
        'lossless JPEG':
        jpeg(900, 900, 0xC3),
        'PNG':
        png_header(60_000, 60_000) + chunk(b'IDAT', bomb) + png[-12:],
        'PNG, profile':
        png[:start] + chunk(b'iCCP', b'n\0\0' + bomb) + png[start:],
        'PNG, text':
        png[:start] + chunk(b'zTXt', b'k\0\0' + bomb) + png[start:],
        'PNG, many texts':
        png[:start] + text + png[start:],
        'PNG, many texts at the end':
        png[:-12] + text + png[-12:],
        'APNG':
        png[:start] + chunk(b'acTL', struct.pack('>II', 10**6, 0)) +
        chunk(b'fcTL',
              struct.pack('>IIIIIHHBB', 0, 60_000, 60_000, 0, 0, 1, 1, 0, 0)) +
        png[start:],
        'TIFF of one wide row':
        grey_tiff(t256=(4, 1, 2**31 - 1)),
        'TIFF of large tiles':
        grey_tiff(t322=(4, 1, 65_536), t323=(4, 1, 32_768), **tiled),
        'TIFF of many samples':
        grey_tiff(t277=(3, 1, 60_000)),
        'TIFF of many strips':
        grey_tiff(t273=(4, 2**30, 200), t279=(4, 2**30, 200)),
        'TIFF of a long strip':
        grey_tiff(t279=(4, 1, 2**32 - 1)),
        'GIF':
        gif[:6] + struct.pack('<HH', 65_535, 65_535) + gif[10:],
        'GIF of a large frame':
        gif[:frame + 5] + struct.pack('<HH', 65_535, 65_535) + gif[frame + 9:],
        'GIF of many frames':
        gif[:frame] + gif[frame:-1] * 100_000 + b';',
        'WebP':
        webp[:canvas] + b'\xff\x3f\x00' * 2 + webp[canvas + 6:],
        'WebP, wide':
        webp[:canvas] + b'\xff\xff\x00\x00\x01\x00' + webp[canvas + 6:],
        'BMP':
        bmp(60_000, 60_000),
        'BMP of runs':
        bmp(60_000, 60_000, 1, data=b'\xff\0' * 200),
        'BMP of many colours':
        bmp(8, 8, colours=2**31 - 1),
    }
    if features.check('avif'):
        files['AVIF'] = encoded(
            Image.new('RGB', (3000, 3000)), format='AVIF', speed=10)
    return files
