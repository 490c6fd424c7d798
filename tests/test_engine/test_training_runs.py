# Licensed under the Apache License, Version 2.0.
import subprocess
from pathlib import Path

import pytest

from mmdet_clim.engine import finish_training

# Counts its starts in the work dir, and stops the first time.
TOOL = """
import os, sys
from pathlib import Path
words = sys.argv[1:]
work_dir = Path(words[2])
work_dir.mkdir(parents=True, exist_ok=True)
with open(work_dir / 'starts', 'a') as file:
    file.write(' '.join([words[0], *words[3:], os.environ['ROOT']]) + '\\n')
if len((work_dir / 'starts').read_text().splitlines()) == 1:
    sys.exit(1)
(work_dir / 'last_checkpoint').write_text('runs/iter_2.pth\\n')
"""


def test_a_stopped_training_goes_on_and_a_finished_one_is_left(tmp_path):
    tool, work_dir = tmp_path / 'train.py', tmp_path / 'runs'
    tool.write_text(TOOL)

    def finish():
        return finish_training(tool, Path('a.py'), work_dir, 3, ['lr=1'],
                               dict(ROOT='data'))

    with pytest.raises(subprocess.CalledProcessError):
        finish()
    assert finish() == Path('runs/iter_2.pth')
    assert finish() == Path('runs/iter_2.pth')
    call = 'a.py --resume --cfg-options randomness.seed=3 lr=1 data'
    assert (work_dir / 'starts').read_text().splitlines() == [call] * 2
