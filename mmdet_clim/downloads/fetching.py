# Licensed under the Apache License, Version 2.0.
"""Large files over HTTP, which go on where a stopped download was."""
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from mmdet_clim.progress import progress

BLOCK = 1 << 16
#: Seconds without an answer.
PATIENCE = 30


def fetch(url: str, path: Path, digest: str | None = None) -> bool:
    """Download a file, whole or not at all.

    What has come stands in ``PATH.part``; a later call goes on after it,
    if the server still has the same file.

    Args:
        url (str): An address of ``http``, ``https`` or ``file``.
        path (Path): Where the file appears once it is whole and checked.
        digest (str, optional): Its SHA-256, or the first digits of it.

    Returns:
        bool: Whether it was downloaded; it may be there already.

    Raises:
        ConnectionError: If there is no connection, or it ends too early.
        FileNotFoundError: If there is no such file on the server.
        ValueError: If the scheme is another, or the file is not the one of
            the digest; then it is removed.
    """
    scheme = urlsplit(url).scheme
    if scheme not in ('http', 'https', 'file'):
        raise ValueError(f'{url}: expected an http, https or file URL')
    if path.exists():
        _check(path, digest, url)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    if scheme == 'file':
        source = Path(unquote(urlsplit(url).path))
        if not source.is_file():
            raise FileNotFoundError(f'{url}: no such file')
        shutil.copyfile(source, part)
    else:
        try:
            _over_http(url, part, path)
        except requests.RequestException as error:
            raise ConnectionError(
                f'{url}: no connection ({type(error).__name__}). The same '
                'command resumes; without a network, download the file '
                f'elsewhere and put it at {path}') from error
    _check(part, digest, url)
    part.replace(path)
    _state(part).unlink(missing_ok=True)
    return True


def _over_http(url: str, part: Path, path: Path) -> None:
    """Download to a part file, after what it has already."""
    version = _version_of(part)
    begun = part.stat().st_size if version and part.exists() else 0
    headers = {'Accept-Encoding': 'identity'}
    if version and begun:
        headers.update({'Range': f'bytes={begun}-', 'If-Range': version})
    with requests.get(
            url, headers=headers, stream=True, timeout=PATIENCE) as answer:
        if answer.status_code == 416:
            # All of it was there, or more than the server has now.
            size = answer.headers.get('Content-Range', '').rpartition('/')[2]
            if size == str(begun):
                return
            part.unlink()
            _state(part).unlink(missing_ok=True)
            return _over_http(url, part, path)
        if answer.status_code in (403, 404, 410):
            raise FileNotFoundError(
                f'{url}: the server refused the file (status '
                f'{answer.status_code}). Download it elsewhere and put it at '
                f'{path}')
        answer.raise_for_status()
        if answer.status_code != 206:
            begun = 0
        length = answer.headers.get('Content-Length')
        total = begun + int(length) if length else None
        _remember(part, answer.headers)
        with open(part, 'r+b' if begun else 'wb') as file:
            file.seek(begun)
            for block in _shown(answer, path.name, begun, total):
                file.write(block)
    written = part.stat().st_size
    if total is not None and written != total:
        raise ConnectionError(
            f'{url}: the connection ended after {written} of {total} bytes; '
            'the same command resumes')


def _shown(answer: requests.Response, name: str, begun: int,
           total: int | None) -> Iterator[bytes]:
    """The blocks of an answer, with a bar of progress on a terminal."""
    blocks = answer.iter_content(BLOCK)
    with progress(name, total, begun, in_bytes=True) as advance:
        try:
            for block in blocks:
                yield block
                advance(len(block))
        except requests.exceptions.ChunkedEncodingError:
            # Cut off: what has come is kept, the sizes say that more is to.
            if total is None:
                raise


def _state(part: Path) -> Path:
    """Where the server's name of the version of a part file is kept."""
    return part.with_name(f'{part.name}.json')


def _version_of(part: Path) -> str | None:
    """What version the part is of, None if that is not known."""
    try:
        version = json.loads(_state(part).read_text()).get('version')
    except (OSError, ValueError, AttributeError):
        return None
    return version if isinstance(version, str) else None


def _remember(part: Path, headers) -> None:
    """Keep what a later request asks for the same version by."""
    etag = headers.get('ETag', '')
    # A weak one does not promise the same bytes.
    version = etag if etag and not etag.startswith('W/') else headers.get(
        'Last-Modified')
    if version:
        _state(part).write_text(json.dumps(dict(version=version)))
    else:
        _state(part).unlink(missing_ok=True)


def _check(path: Path, digest: str | None, url: str) -> None:
    """Compare with the published digest."""
    if digest is None:
        return
    found = file_sha256(path)
    if not found.startswith(digest.lower()):
        if path.suffix == '.part':
            path.unlink()
            _state(path).unlink(missing_ok=True)
            advice = 'it is removed, the same command starts over'
        else:
            advice = 'remove it to fetch it again'
        raise ValueError(f'{path}: SHA-256 {found[:16]}..., expected '
                         f'{digest}... of {url}; {advice}')


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file of any size, in hexadecimal digits.

    Args:
        path (Path): The file.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
