# Licensed under the Apache License, Version 2.0.
"""Downloads, from a server of this process."""
import hashlib
import importlib.util
import json
import re
import socket
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mmdet_clim.downloads import Published, fetch, find_published, known
from mmdet_clim.downloads.known import names_with
from mmdet_clim_cli.mistakes import is_mistake

CONTENT = bytes(range(256)) * 4000


class Handler(BaseHTTPRequestHandler):
    """Serves one file, in parts and with faults where it is told so."""

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get('Range'))
        if self.path != '/file.bin':
            self.send_error(404)
            return
        begin = 0
        wanted = self.headers.get('Range')
        same = self.headers.get('If-Range') in (None, server.etag)
        if wanted and server.ranges and same:
            begin = int(wanted[len('bytes='):-1])
        if begin >= len(server.content) > 0 and begin:
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(server.content)}')
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        self.send_header('Content-Length', str(len(server.content) - begin))
        if server.etag:
            self.send_header('ETag', server.etag)
        self.end_headers()
        end = server.cut or len(server.content)
        self.wfile.write(server.content[begin:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('NO_PROXY', '*')
    made = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    made.content, made.etag, made.ranges, made.cut = CONTENT, '"1"', True, None
    made.asked = []
    made.url = f'http://127.0.0.1:{made.server_port}/file.bin'
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_digest(server, tmp_path):
    path = tmp_path / 'new' / 'file.bin'
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert fetch(server.url, path, digest[:8])
    assert path.read_bytes() == CONTENT and names(path.parent) == ['file.bin']
    assert not fetch(server.url, path, digest.upper())
    assert len(server.asked) == 1
    with pytest.raises(ValueError, match='remove it to fetch it again'):
        fetch(server.url, path, '00000000')
    assert path.read_bytes() == CONTENT


def test_a_file_that_is_another_one(server, tmp_path):
    with pytest.raises(ValueError, match='SHA-256 .* expected 00000000'):
        fetch(server.url, tmp_path / 'file.bin', '00000000')
    assert names(tmp_path) == []


@pytest.mark.parametrize('ranges', [True, False])
def test_a_download_that_was_cut_off(server, tmp_path, ranges):
    path = tmp_path / 'file.bin'
    server.cut = 2 << 16
    with pytest.raises(
            ConnectionError, match='ended after 131072 of 1024000 bytes'):
        fetch(server.url, path)
    assert names(tmp_path) == ['file.bin.part', 'file.bin.part.json']
    server.cut, server.ranges = None, ranges
    assert fetch(server.url, path)
    assert server.asked == [None, 'bytes=131072-']
    assert path.read_bytes() == CONTENT and names(tmp_path) == ['file.bin']


def test_a_file_that_changed_meanwhile(server, tmp_path):
    path = tmp_path / 'file.bin'
    server.cut = 2 << 16
    with pytest.raises(ConnectionError):
        fetch(server.url, path)
    server.cut, server.etag, server.content = None, '"2"', CONTENT[::-1]
    assert fetch(server.url, path)
    assert path.read_bytes() == CONTENT[::-1]


def test_a_server_that_names_no_version(server, tmp_path):
    """Its part can not be known for one of the same file."""
    path = tmp_path / 'file.bin'
    server.cut, server.etag = 100_000, None
    with pytest.raises(ConnectionError):
        fetch(server.url, path)
    server.cut, server.content = None, CONTENT[::-1]
    assert fetch(server.url, path)
    assert server.asked == [None, None]
    assert path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize('have', [CONTENT, CONTENT + b'more'])
def test_a_part_that_is_all_of_it_or_more(server, tmp_path, have):
    (tmp_path / 'file.bin.part').write_bytes(have)
    (tmp_path / 'file.bin.part.json').write_text('{"version": "\\"1\\""}')
    assert fetch(server.url, tmp_path / 'file.bin')
    assert (tmp_path / 'file.bin').read_bytes() == CONTENT
    assert names(tmp_path) == ['file.bin']


@pytest.mark.parametrize('state', ['', '[]', '{"version": 3}', '\0'])
def test_a_broken_note_of_the_version(server, tmp_path, state):
    (tmp_path / 'file.bin.part').write_bytes(b'something else')
    (tmp_path / 'file.bin.part.json').write_text(state)
    assert fetch(server.url, tmp_path / 'file.bin')
    assert (tmp_path / 'file.bin').read_bytes() == CONTENT


def test_an_empty_file(server, tmp_path):
    server.content = b''
    assert fetch(server.url, tmp_path / 'file.bin')
    assert (tmp_path / 'file.bin').read_bytes() == b''


def test_what_can_not_be_fetched(server, tmp_path, monkeypatch):
    path = tmp_path / 'file.bin'
    with pytest.raises(FileNotFoundError, match='status 404.*put it at'):
        fetch(server.url.replace('file.bin', 'other'), path)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match='without a network') as refused:
        fetch(f'http://127.0.0.1:{port}/x', path)
    assert is_mistake(refused.value) and '\n' not in str(refused.value)
    with pytest.raises(
            ValueError, match='expected an http, https or file URL'):
        fetch('ftp://host/x', path)
    with pytest.raises(FileNotFoundError, match='no such file'):
        fetch(f'file://{tmp_path}/none', path)
    assert names(tmp_path) == []


def test_a_file_of_this_machine(tmp_path):
    (tmp_path / 'a b.bin').write_bytes(b'12')
    assert fetch(f'file://{tmp_path}/a%20b.bin', tmp_path / 'c.bin')
    assert (tmp_path / 'c.bin').read_bytes() == b'12'


def test_names():
    found = find_published('grounding_dino_swin-t_pretrain_obj365_goldg')
    assert found.config.is_file()
    assert found.config.parent.name == 'mm_grounding_dino'
    (url, ) = found.urls
    assert url.startswith('https://download.openmmlab.com/')
    assert found.digest(url) == '4ea751ce'
    with_suffix = find_published(
        'grounding_dino_swin-t_pretrain_obj365_goldg.py')
    assert with_suffix == found
    assert find_published('coco').digest(
        find_published('coco').urls[0]) is None
    with pytest.raises(
            KeyError, match='such as .*faster-rcnn_r50_fpn_1x_coco') as wrong:
        find_published('faster-rcnn_r50_fpn_1x')
    assert is_mistake(wrong.value)
    assert {'coco', 'coco-annotations'} <= set(names_with('COCO'))
    assert len(names_with('')) > 300 and names_with('no such') == []


def test_names_of_the_page(repository):
    """Each detector of the table is found, at the address it has there."""
    text = (repository / 'docs' / 'finetune.md').read_text()
    table = text.partition('| detector | `NAME`')[2].partition('\n\n')[0]
    rows = [line.split('|')[1:4] for line in table.splitlines()[2:]]
    found = {}
    for _, column, where in rows:
        name, *others = re.findall('`([^`/]+)`', column) or [None]
        if name is not None:
            found[name] = find_published(name)
        urls = re.findall(r'\((https:[^)]+)\)', where)
        assert not urls or list(found[name].urls) == urls
        for other in others:
            assert find_published(other).urls
    assert len(found) > 8 and 'llmdet' in found


@pytest.fixture
def tool(repository):
    spec = importlib.util.spec_from_file_location(
        'download', repository / 'tools' / 'download.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tool(tool, tmp_path, monkeypatch, capsys):
    with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as archive:
        archive.writestr('annotations/a.json', '{}')
        archive.writestr('annotations/b.json', '[1]')
    monkeypatch.setitem(
        known.DATASETS, 'coco',
        Published('coco', (f'file://{tmp_path}/set.zip', ), 'none', 'coco'))
    out = tmp_path / 'data'
    tool.main(['coco', '--out-dir', str(out)])
    assert (out / 'coco/annotations/b.json').read_text() == '[1]'
    assert '2 files unpacked' in capsys.readouterr().out
    (out / 'coco/annotations/b.json').write_text('[')
    tool.main(['coco', '--out-dir', str(out)])
    printed = capsys.readouterr().out
    assert 'is there, no checksum' in printed and '1 files' in printed
    tool.main(['cc3m', '--out-dir', str(out)])
    assert f'--output_folder {out}/cc3m ' in capsys.readouterr().out
    tool.main(['llmdet'])
    assert '--checkpoint checkpoints/tiny.pth' in capsys.readouterr().out
    tool.main(['coco', '--out-dir', str(out), '--json'])
    printed, = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed['name'] == 'coco' and printed['licence'] == 'none'
    assert printed['files'] == [
        dict(path=f'{out}/coco/set.zip', fetched=False, checked=False)
    ]
    tool.main(['--list', 'glip_atss_swin-t_a', '--json'])
    listed = json.loads(capsys.readouterr().out)
    assert 'glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365' in listed
    tool.main(['--list', 'glip_atss_swin-t_a'])
    assert 'glip_atss_swin-t_a_fpn' in capsys.readouterr().out
    for words in ([], ['coco', '--list']):
        with pytest.raises(SystemExit):
            tool.parse_args(words)


def test_archives_that_are_none_or_reach_out(tool, tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('../out.txt', 'x')
    with pytest.raises(ValueError, match=r"'../out.txt' is not below"):
        tool.unpack(tmp_path / 'a.zip', tmp_path / 'in')
    assert not (tmp_path / 'out.txt').exists()
    (tmp_path / 'a.zip').write_bytes(b'<html>')
    with pytest.raises(ValueError, match='not a zip file; remove it'):
        tool.unpack(tmp_path / 'a.zip', tmp_path / 'in')
