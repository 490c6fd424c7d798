# Licensed under the Apache License, Version 2.0.
"""The notebooks in docs/ run from top to bottom."""
import json
import tempfile

import pytest
from PIL import Image


def code_cells(notebook):
    """The code of each cell."""
    content = json.loads(notebook.read_text(encoding='utf-8'))
    return [
        ''.join(cell['source']) for cell in content['cells']
        if cell['cell_type'] == 'code'
    ]


@pytest.fixture
def run_notebook(repository, tmp_path, monkeypatch):
    """Run the cells one after the other, where Jupyter would."""

    def run(name):
        notebook = repository / 'docs' / 'notebooks' / name
        monkeypatch.chdir(notebook.parent)
        # What it sets and writes is gone with the test.
        monkeypatch.setenv('OPENMOJI_ROOT', '')
        monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
        names = dict(__name__='__main__')
        for number, source in enumerate(code_cells(notebook), 1):
            exec(compile(source, f'{name}, cell {number}', 'exec'), names)
        return names

    return run


def test_first_run(run_notebook):
    names = run_notebook('first_run.ipynb')
    # A mosaic has several tiles, and the steps fit the texts better.
    assert len(names['sample'].captions) > 1
    assert names['history'][-1] < names['history'][0]
    # The maps of the last picture differ before and after.
    before, after = names['before'], names['answers']()
    assert len(before) == len(names['words']) and before.shape == after.shape
    assert (before - after).abs().max() > 1e-3
    assert len(names['prediction']['names'])
    drawn = Image.fromarray(names['found']['visualization'][0])
    assert drawn.size[0] == 3 * names['image'].shape[1]
