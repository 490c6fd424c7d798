# Licensed under the Apache License, Version 2.0.
import pickle

import numpy as np
import pytest
import torch

from mmdet_clim.models.text_encoders import PrecomputedTextEncoder
from mmdet_clim.registry import MODELS

NAMES = ['cat', 'dog', 'traffic light']
VECTORS = [[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]]


def write(folder, names=NAMES, vectors=VECTORS, suffix='.npz'):
    file = folder / f'texts{suffix}'
    if suffix == '.npz':
        np.savez(file, names=np.array(names), vectors=np.array(vectors))
    else:
        torch.save(dict(names=names, vectors=torch.tensor(vectors)), file)
    return str(file)


@pytest.mark.parametrize('suffix', ['.npz', '.pth'])
def test_looks_up_unit_vectors(tmp_path, suffix):
    encoder = MODELS.build(
        dict(
            type='mmdet_clim.PrecomputedTextEncoder',
            file=write(tmp_path, suffix=suffix),
            dim=2))
    assert encoder.dim == 2
    torch.testing.assert_close(
        encoder(['traffic light', 'cat', 'cat']),
        torch.tensor([[-1.0, 0.0], [0.6, 0.8], [0.6, 0.8]]))
    assert encoder([]).shape == (0, 2)
    assert not encoder.state_dict()


def test_text_that_is_not_there(tmp_path):
    encoder = PrecomputedTextEncoder(write(tmp_path))
    with pytest.raises(KeyError, match="'trafic light'.*'traffic light'"):
        encoder(['cat', 'trafic light'])


@pytest.mark.parametrize('suffix', ['.npz', '.pth'])
@pytest.mark.parametrize('names, vectors, message', [
    (['cat', 'dog'], VECTORS, r'for its 2 names, got \(3, 2\)'),
    (['cat', 'dog', 'cat'], VECTORS, r"given twice: \['cat'\]"),
    (['cat', 'dog', ' '], VECTORS, 'non-empty string'),
    (NAMES, [1.0, 2.0, 3.0], r'got \(3,\)'),
    (NAMES, [[1.0], [0.0], [2.0]], r"got others for \['dog'\]"),
    (NAMES, [[1.0], [1.0], [float('nan')]], 'traffic light'),
])
def test_wrong_content(tmp_path, suffix, names, vectors, message):
    with pytest.raises(ValueError, match=message):
        PrecomputedTextEncoder(write(tmp_path, names, vectors, suffix))


def test_wrong_width(tmp_path):
    with pytest.raises(ValueError, match='width dim=512, got 2'):
        PrecomputedTextEncoder(write(tmp_path), dim=512)


def test_wrong_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.npz'):
        PrecomputedTextEncoder(str(tmp_path / 'none.npz'))
    (tmp_path / 'texts.json').touch()
    with pytest.raises(ValueError, match="'.json'"):
        PrecomputedTextEncoder(str(tmp_path / 'texts.json'))
    np.savez(tmp_path / 'half.npz', names=np.array(NAMES))
    with pytest.raises(ValueError, match=r"missing: \['vectors'\]"):
        PrecomputedTextEncoder(str(tmp_path / 'half.npz'))
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match='expected a dict'):
        PrecomputedTextEncoder(str(tmp_path / 'list.pth'))


class Malicious:

    def __reduce__(self):
        return print, ('a file ran code', )


def test_files_with_code_are_refused(tmp_path, capsys):
    torch.save(dict(names=Malicious(), vectors=0), tmp_path / 'bad.pth')
    with pytest.raises(pickle.UnpicklingError):
        PrecomputedTextEncoder(str(tmp_path / 'bad.pth'))
    np.savez(
        tmp_path / 'bad.npz',
        names=np.array([Malicious()], dtype=object),
        vectors=np.ones((1, 2)))
    with pytest.raises(ValueError, match='allow_pickle'):
        PrecomputedTextEncoder(str(tmp_path / 'bad.npz'))
    assert 'ran code' not in capsys.readouterr().out
