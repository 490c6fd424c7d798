# Licensed under the Apache License, Version 2.0.
"""The memory that images take, in a process that reads nothing else."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, features

import mmdet_clim.datasets.images as images

sys.path.append(str(Path(__file__).parent))
from hostile_images import (  # noqa: E402  isort: skip
    encoded, hostile_images,
)

SIDE = 1000
# Per pixel of max_pixels, as decode_image says; and for the libraries.
MOST_BYTES, LIBRARIES = 24, 24 << 20
READ_ALL = '''
import importlib.util, json, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location('images', sys.argv[1])
images = importlib.util.module_from_spec(spec)
spec.loader.exec_module(images)

def peak():
    """In bytes, of this process."""
    status = Path('/proc/self/status').read_text().splitlines()
    line, = (line for line in status if line.startswith('VmHWM:'))
    return 1024 * int(line.split()[1])

found = {}
for file in sorted(Path(sys.argv[2]).iterdir()):
    data = file.read_bytes()
    before = peak()
    try:
        for read in (images.image_size, images.decode_image):
            result = read(data, max_pixels=int(sys.argv[3]))
        found[file.name] = [peak() - before, 'read']
    except images.UnreadableImageError as error:
        found[file.name] = [peak() - before, error.reason]
print(json.dumps(found))
'''


def read_all(folder):
    done = subprocess.run([
        sys.executable, '-c', READ_ALL, images.__file__, folder,
        str(SIDE**2)
    ],
                          capture_output=True,
                          text=True,
                          check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path('/proc/self/status').is_file(), reason='no /proc')
def test_no_file_takes_more_than_max_pixels_allow(tmp_path):
    hostile = hostile_images()
    assert all(len(data) < 11 << 20 for data in hostile.values())
    large = Image.effect_noise((SIDE, SIDE), 60).convert('RGB')
    honest = {
        'honest progressive JPEG':
        encoded(large, format='JPEG', progressive=True, subsampling=0),
        'honest CMYK JPEG':
        encoded(large.convert('CMYK'), format='JPEG'),
        'honest RGBA PNG':
        encoded(large.convert('RGBA'), format='PNG'),
        'honest TIFF':
        encoded(large.convert('CMYK'), format='TIFF', compression='tiff_lzw'),
        'honest GIF':
        encoded(large, format='GIF', save_all=True, append_images=[large] * 2),
        'honest WebP':
        encoded(large.convert('RGBA'), format='WEBP', lossless=True, method=0),
        'honest BMP':
        encoded(large, format='BMP'),
    }
    if features.check('avif'):
        honest['honest AVIF'] = encoded(
            large, format='AVIF', speed=10, subsampling='4:4:4')
    for name, data in {**hostile, **honest}.items():
        (tmp_path / name).write_bytes(data)
    found = read_all(tmp_path)
    # The peak never falls, so what was taken sums up to it.
    assert sum(grown for grown, _ in found.values()) < \
        MOST_BYTES * SIDE**2 + LIBRARIES, found
    outcomes = {name: outcome for name, (_, outcome) in found.items()}
    assert {outcomes[name] for name in honest} == {'read'}, outcomes
    # Small images in files that hide something beside them.
    harmless = {'APNG', 'GIF of many frames', 'PNG, many texts at the end'}
    assert {name
            for name in hostile
            if outcomes[name] == 'read'} <= harmless, outcomes
    for name in ('progressive JPEG', 'JPEG in several scans', 'PNG', 'GIF',
                 'progressive JPEG, four times the pixels', 'WebP', 'BMP',
                 'TIFF of large tiles', 'JPEG of 65500 pixels'):
        assert outcomes[name] == 'too large', name
    assert outcomes['JPEG without its blocks'] == 'cut short'
