# Licensed under the Apache License, Version 2.0.
"""How often a branch has a GPU wait, and for how many operators."""
import importlib.util
import json
import multiprocessing
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# No part of this package; it lies beside where this project is written.
TOOLS = [p / 'shared/tools/fakecuda.py' for p in REPOSITORY.parents]
FAKECUDA = next((path for path in TOOLS if path.is_file()), None)
MAX_WAITS, MAX_OPERATORS = 40, 2500


def count(folder, num_images):
    """In a process of its own, as the tool changes PyTorch."""
    spec = importlib.util.spec_from_file_location(
        'device_work', REPOSITORY / 'benchmarks/device_work.py')
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.measure(FAKECUDA, num_images, 64)
    (folder / f'{num_images}.json').write_text(json.dumps(found))


@pytest.mark.skipif(FAKECUDA is None, reason='fakecuda.py is not there')
def test_waits_and_operators_of_the_ov_lvis_branches(tmp_path):
    numbers = {}
    for num_images in (3, 16):
        process = multiprocessing.get_context('fork').Process(
            target=count, args=(tmp_path, num_images))
        process.start()
        process.join()
        numbers[num_images] = json.loads(
            (tmp_path / f'{num_images}.json').read_text())
    for branch in ('mosaic', 'captions'):
        few, many = numbers[3][branch], numbers[16][branch]
        assert many['waits'] == few['waits'] <= MAX_WAITS
        assert many['operators'] <= MAX_OPERATORS
