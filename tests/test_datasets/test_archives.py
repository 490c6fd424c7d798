# Licensed under the Apache License, Version 2.0.
"""Archives that hold more than they are long."""
import io
import os
import zipfile

import numpy as np
import pytest
import torch

from mmdet_clim.datasets.archives import check_stored, read_arrays
from mmdet_clim.models.text_encoders.precomputed import load_vectors

NAMES = ('names', 'vectors')


def header(shape, dtype='<f4'):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, dict(shape=shape, fortran_order=False, descr=dtype))
    return buffer.getvalue()


def write_npz(path, vectors, megabytes=0):
    """Names, and vectors of a header with so many zeros behind it."""
    names = io.BytesIO()
    np.save(names, np.array(['cat']))
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('names.npy', names.getvalue())
        with archive.open('vectors.npy', 'w', force_zip64=True) as member:
            member.write(vectors)
            for _ in range(megabytes):
                member.write(bytes(1 << 20))


def test_arrays_are_what_numpy_reads(tmp_path):
    expected = dict(
        names=np.array(['cat', 'dog']), vectors=np.eye(2, 3), other=np.ones(2))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / 'a.npz', **expected)
        found = read_arrays(tmp_path / 'a.npz', NAMES)
        assert set(found) == set(NAMES)
        for name in NAMES:
            np.testing.assert_array_equal(found[name], expected[name])


def test_a_small_file_that_takes_gigabytes(tmp_path):
    write_npz(tmp_path / 'a.npz', header((1, 300 << 20)), 1200)
    assert os.path.getsize(tmp_path / 'a.npz') < 4 << 20
    for read in (lambda p: read_arrays(p, NAMES), load_vectors):
        with pytest.raises(ValueError, match='bytes, expected at most'):
            read(tmp_path / 'a.npz')


@pytest.mark.parametrize('vectors, message', [
    (header((1, 2**40)), 'its header says'),
    (header((2**62, 2**62)), 'its header says'),
    (header((-1, -8)), 'ValueError'),
    (header((1, 4), '|O') + bytes(32), 'ValueError'),
    (b'no array', 'ValueError'),
    (b'', 'ValueError'),
])
def test_headers_that_claim_more(tmp_path, vectors, message):
    write_npz(tmp_path / 'a.npz', vectors)
    with pytest.raises(ValueError, match=message) as caught:
        read_arrays(tmp_path / 'a.npz', NAMES)
    assert 'a.npz' in str(caught.value)


def test_what_is_no_archive(tmp_path):
    for data in (b'', b'PK\x03\x04', b'text'):
        (tmp_path / 'a.npz').write_bytes(data)
        with pytest.raises(ValueError, match=r'a.npz: expected a \.npz'):
            read_arrays(tmp_path / 'a.npz', NAMES)
    os.mkfifo(tmp_path / 'b.npz')
    with pytest.raises(OSError, match='got a pipe'):
        read_arrays(tmp_path / 'b.npz', NAMES)


def test_checkpoints_are_stored_as_they_are(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(a=torch.zeros(1000))), path)
    check_stored(path)
    torch.save(dict(a=1), path, _use_new_zipfile_serialization=False)
    check_stored(path)
    torch.save(dict(a=torch.zeros(1 << 20)), path)
    with zipfile.ZipFile(path) as archive:
        members = {i.filename: archive.read(i) for i in archive.infolist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match='a.pth.*compressed archive'):
        check_stored(path)
    for odd in ('pipe', 'folder'):
        (os.mkfifo if odd == 'pipe' else os.mkdir)(tmp_path / odd)
        with pytest.raises(OSError, match=f'got a {odd}'):
            check_stored(tmp_path / odd)
