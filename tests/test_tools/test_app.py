# Licensed under the Apache License, Version 2.0.
"""The page, asked as a program asks it and as a user does."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from configparser import ConfigParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
import requests
from packaging.requirements import Requirement

from mmdet_clim.visualization.detections import BASE_COLOUR

# Not imported: that takes seconds, and is only for the pages.
pytestmark = pytest.mark.skipif(
    not find_spec('gradio'), reason='gradio is not installed')

CONFIGS = 'configs/openmoji'
#: Pixels across of a phone.
PHONE = 390
BROWSER, DRIVER = shutil.which('chromium'), shutil.which('chromedriver')
# As root in a container, and nothing that Chromium asks of its makers.
BROWSER_FLAGS = ('--headless', '--no-sandbox', '--disable-gpu',
                 '--disable-quic', '--disable-dev-shm-usage', '--no-first-run',
                 '--disable-background-networking',
                 '--disable-component-update', '--disable-sync',
                 '--window-size=1280,1400')
# One Python for several pages, each a fork of it, as torch and mmdet take ten
# seconds to import. It has no threads yet: the process of the tests may, and a
# fork of that can hang. It lives as long as all pages do.
PAGES = """
import json, os, runpy, signal, sys, threading
import mmdet.apis, mmdet.models, mmdet_clim.apis
assert threading.active_count() == 1
pages = json.loads(sys.argv[1])
for log, *sys.argv in pages:
    if not os.fork():
        file = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.path[0] = os.path.dirname(sys.argv[0])
        runpy.run_path(sys.argv[0], run_name='__main__')
        sys.exit()
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
for _ in pages:
    os.wait()
    if not stopped:
        os.killpg(0, signal.SIGTERM)
"""


class Page:
    """A running tools/app.py."""

    def __init__(self, url, log):
        self.url = url
        self.log = log
        self.folders = set()

    def until(self, condition):
        """Wait for a value that is true while the app lives."""
        while True:
            value = condition()
            if value:
                return value
            assert self.process.poll() is None, [
                log.read_text() for log in self.log.parent.glob('log*')
            ]
            time.sleep(.1)

    def post(self, name, data):
        return requests.post(
            f'{self.url}/gradio_api/upload', files=dict(files=(name, data)))

    def upload(self, name, data):
        """The path of what was uploaded; the app's folder is noted."""
        path = self.post(name, data).json()[0]
        self.folders.add(Path(path).parents[1])
        return path

    def ask(self, path, words, score_thr):
        """What the page finds in an image, or its error."""
        return self.call('find', path and file_of(path), words, score_thr)

    def call(self, name, *data):
        """What a function of the page answers, or its error."""
        call = f'{self.url}/gradio_api/call/{name}'
        event = requests.post(call, json=dict(data=data)).json()
        if 'error' in event:
            return event['error']
        answer = requests.get(f'{call}/{event["event_id"]}').text
        kind, data = answer.strip().split('\n\n')[-1].splitlines()
        answer = json.loads(data.removeprefix('data: '))
        return answer['error'] if kind == 'event: error' else answer


def file_of(path):
    """An upload, as a call names it."""
    return dict(path=path, meta=dict(_type='gradio.FileData'))


@pytest.fixture(scope='module')
def image(openmoji_root):
    return sorted((openmoji_root / 'val2017').glob('*.jpg'))[0]


@pytest.fixture(scope='module')
def pages(repository, small_detector, tmp_path_factory):
    """Pages of the shipped detector: with a detector before it, which is the
    same one, and with a password. They are stopped as a service is."""
    folder = tmp_path_factory.mktemp('app')
    (folder / 'password').write_text('open sesame\n')
    detector = repository / CONFIGS / 'faster-rcnn_r18-c4_256_base.pth'
    made, arguments = [], []
    for options in (('--before', detector), ('--password-file',
                                             folder / 'password')):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        log = folder / f'log{port}'
        log.touch()
        made.append(Page(f'http://127.0.0.1:{port}', log))
        arguments.append([
            str(word)
            for word in (log, repository / 'tools/app.py', '--config',
                         small_detector('faster-rcnn_r18-c4_256_boxes'),
                         '--checkpoint', detector, '--device', 'cpu', '--port',
                         port, *options)
        ])
    with open(folder / 'log', 'w') as file:
        process = subprocess.Popen(
            [sys.executable, '-c', PAGES,
             json.dumps(arguments)],
            stdout=file,
            stderr=file,
            start_new_session=True)
    try:
        for page in made:
            page.process = process
            page.until(lambda page=page: page.url in page.log.read_text())
        yield made
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    # Whatever was uploaded lay in one folder of each page's own.
    for page in made:
        assert len(page.folders) <= 1
        for folder in page.folders:
            assert folder.name.startswith('mmdet_clim_app_')
            assert not folder.exists()


@pytest.fixture(scope='module')
def page(pages):
    """The page that both detectors, being one, must fill with the same."""
    return pages[0]


def test_boxes_maps_and_scores(page, image):
    upload = page.upload(image.name, image.read_bytes())
    assert Path(upload).read_bytes() == image.read_bytes()
    drawn, maps, table, message, files, before = page.ask(
        upload, 'car, bear', 0)
    assert table['headers'] == ['word', 'score', 'x1', 'y1', 'x2', 'y2']
    scores = [row[1] for row in table['data']]
    assert scores == sorted(scores, reverse=True) and len(scores) > 1
    assert {row[0] for row in table['data']} <= {'car', 'bear'}
    assert [of['caption'].split(':')[0]
            for of in maps] == ['before, car', 'car', 'before, bear', 'bear']
    assert message.startswith(f'{len(scores)} boxes')
    assert f' Before: {len(scores)} boxes' in message
    for url in (drawn['url'], *(of['image']['url'] for of in maps)):
        assert url.startswith(page.url)
        assert max(decoded(url).shape) == 640
    np.testing.assert_array_equal(
        decoded(drawn['url']), decoded(before['url']))
    # The same as files.
    plain, coco = (requests.get(of['url']).json() for of in files)
    entry, = plain
    assert entry['file'] == image.name
    assert [[box['name'], round(box['score'], 3)]
            for box in entry['boxes']] == [row[:2] for row in table['data']]
    assert [a['score'] for a in coco['annotations']
            ] == [round(box['score'], 4) for box in entry['boxes']]
    # The threshold, of all and of a word.
    least = (scores[0] + scores[1]) / 2
    table = page.ask(upload, 'car, bear', least)[2]
    assert [row[1] for row in table['data']] == scores[:1]
    table = page.ask(upload, 'car = 1, bear = 0', least)[2]
    assert {row[0] for row in table['data']} == {'bear'}


def test_two_words_compared(page, image):
    upload = page.upload(image.name, image.read_bytes())
    difference, both, message = page.call('compare', file_of(upload), 'car',
                                          'bear', .3)
    assert max(decoded(difference['url']).shape) == 640
    assert decoded(both['url']).shape == decoded(difference['url']).shape
    assert 'More like car (hot) than bear (cold): ' in message
    assert 'two different ones' in page.call('compare', file_of(upload), 'car',
                                             'car', .3)


def test_many_files_at_once(page, image, tmp_path):
    frame = cv2.imread(str(image))
    video = cv2.VideoWriter(
        str(tmp_path / 'in.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5,
        frame.shape[1::-1])
    for _ in range(2):
        video.write(frame)
    video.release()
    (tmp_path / 'no.mp4').write_bytes(b'nothing')
    (tmp_path / 'notes.txt').write_text('notes')
    files = [
        file_of(page.upload(path.name, path.read_bytes()))
        for path in (image, *sorted(tmp_path.iterdir()))
    ]
    pictures, drawn, message, downloads = page.call('find_all', files[:2],
                                                    files[2:], 'car', 0)
    assert message.startswith('Images: 1, videos: 1, boxes: ')
    assert 'no.mp4 (' in message and 'notes.txt (' in message
    picture, = pictures
    assert picture['caption'].startswith(f'{image.name}: ')
    plain, coco, again = downloads
    found = requests.get(plain['url']).json()
    assert [of['file'] for of in found] == [image.name, 'in.avi']
    assert len(found[1]['frames']) == 2
    names = [
        of['file_name'] for of in requests.get(coco['url']).json()['images']
    ]
    assert names == [image.name, 'in.avi#0', 'in.avi#1']
    for of in (drawn, again):
        name = of['url'].rpartition('/')[2]
        assert name == 'in.webm'
        assert requests.get(of['url']).content[:4] == b'\x1aE\xdf\xa3'
    for none in (None, []):
        assert 'expected 1 to 200 files, got 0' in page.call(
            'find_all', none, None, 'car', 0)
    assert 'given twice' in page.call('find_all', files, None, 'car, car', 0)


def test_what_is_wrong_is_said_and_survived(page, image):
    upload = page.upload(image.name, image.read_bytes())
    for words, message in (('cat, cat', 'given twice'), (' ,', 'at least one'),
                           ('<i>, <i>', '&lt;i&gt;')):
        assert message in page.ask(upload, words, .3)
    assert 'expected one, got none' in page.ask(None, 'cat', .3)
    large = cv2.imencode('.png', np.zeros((5001, 5000), np.uint8))[1]
    cut = image.read_bytes()[:-500]
    for name, data, message in (('large.png', large.tobytes(),
                                 '5000 x 5001 pixels'),
                                ('notes.png', b'no image', 'not an image'),
                                ('cut.jpg', cut, 'cut short')):
        broken = page.upload(name, data)
        assert message in page.ask(broken, 'cat', .3)
    # Nothing that was not uploaded is read, and nothing is fetched.
    assert 'not uploaded' in page.ask(str(image), 'cat', .3)
    for scheme in ('http', 'https'):
        address = f'{scheme}://example.com/cat.jpg'
        assert 'expected an upload' in page.ask(address, 'cat', .3)
        file = file_of(address)
        assert 'expected an upload' in page.ask(upload, file, .3)
        assert 'expected an upload' in page.call('find_all', [file], None,
                                                 'cat', .3)
        assert 'expected an upload' in page.ask(upload, 'cat', file)
    refused = page.post('huge.png', bytes(21 * 2**20))
    assert refused.status_code == 413
    assert 'exceeded maximum' in refused.text
    assert page.ask(upload, 'cat', .3)[1][1]['caption'].startswith('cat:')


def test_no_address_is_fetched_in_any_way(page, image):
    """A server beside the page counts what it is asked for."""
    asked = []

    class Count(BaseHTTPRequestHandler):

        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET

        def log_message(self, *args):
            pass

    upload = page.upload(image.name, image.read_bytes())
    with HTTPServer(('127.0.0.1', 0), Count) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}/cat.jpg'
        file = file_of(address)
        for value in (file, [file], dict(background=file),
                      dict(file, path='HTTP' + address[4:])):
            for name in ('call/find', 'run/find', 'queue/join', 'api/find'):
                answer = requests.post(
                    f'{page.url}/gradio_api/{name}',
                    json=dict(
                        data=[value, 'cat', .3], fn_index=0, session_hash='x'))
                assert answer.status_code in (400, 404, 405), (name, value)
        for name in ('file=', 'proxy='):
            answer = requests.get(
                f'{page.url}/gradio_api/{name}{address}',
                allow_redirects=False)
            assert answer.status_code == 400
        deep = '{"data":' + '[' * 10**5 + ']' * 10**5 + '}'
        for body in (deep, 'x' * (1 << 21)):
            assert requests.post(f'{page.url}/gradio_api/call/find',
                                 body).status_code == 400
        server.shutdown()
    assert asked == []
    assert page.ask(upload, 'cat', .3)[1][1]['caption'].startswith('cat:')


@pytest.mark.parametrize('name, status', [('127.0.0.1', 200),
                                          ('localhost', 200),
                                          ('evil.example', 400), ('', 400),
                                          ('127.0.0.1.evil.example', 400)])
def test_a_foreign_host_is_not_answered(page, name, status):
    """As a browser asks whose page had its name lead here."""
    port = page.url.rsplit(':', 1)[1]
    for path in ('/', '/config', '/gradio_api/info'):
        answer = requests.get(
            page.url + path, headers=dict(Host=f'{name}:{port}'))
        if path == '/' or status == 400:
            assert answer.status_code == status


def test_with_a_password_nobody_else_sees_the_page(pages):
    page = pages[1]
    session = requests.Session()
    assert session.get(f'{page.url}/config').status_code == 401
    assert page.post('a.png', b'').status_code == 401
    assert requests.post(
        f'{page.url}/gradio_api/call/find',
        json=dict(data=[None, 'cat', .3])).status_code == 401
    for password, status in (('wrong', 400), ('open sesame', 200)):
        answer = session.post(
            f'{page.url}/login', data=dict(username='me', password=password))
        assert answer.status_code == status
    assert session.get(f'{page.url}/config').status_code == 200


def test_only_this_machine_is_answered(page):
    port = int(page.url.rsplit(':', 1)[1])
    listening = [
        line.split()[1] for table in ('tcp', 'tcp6')
        for line in open(f'/proc/net/{table}').readlines()[1:]
        if line.split()[3] == '0A'
    ]
    # Little-endian 127.0.0.1.
    assert [a for a in listening
            if int(a.split(':')[1], 16) == port] == [f'0100007F:{port:04X}']


@pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason='chromium and chromedriver (Debian: chromium-driver) are not '
    'installed')
def test_in_a_browser(page, image, tmp_path):
    webdriver = pytest.importorskip('selenium.webdriver')
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*BROWSER_FLAGS, f'--user-data-dir={tmp_path}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', dict(performance='ALL'))
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        use(driver, page, image)
        asked = {
            event['params']['request']['url']
            for event in (json.loads(entry['message'])['message']
                          for entry in driver.get_log('performance'))
            if event['method'] == 'Network.requestWillBeSent'
        }
    finally:
        driver.quit()
    # Offline, too: fonts and scripts are the page's own.
    assert page.url + '/' in asked
    assert [
        url for url in asked
        if url.startswith(('http', 'ws',
                           '//')) and not url.startswith(page.url)
    ] == []


def use(driver, page, image):
    """Upload, type, click, look; then make a mistake and correct it."""

    def all_of(css):
        return driver.find_elements('css selector', css)

    def seen(css):
        return page.until(lambda: all_of(css))[0]

    def rows():
        return [row.text.split() for row in all_of('#table [data-index]')]

    driver.get(page.url)
    seen('#image input[type=file]').send_keys(str(image))
    shown = seen('#image img').get_attribute('src')
    words = seen('#words textarea')
    words.send_keys('car\nbear')
    threshold = seen('#threshold input[type=number]')
    threshold.clear()
    threshold.send_keys('0.01\t')
    seen('#find').click()
    drawn = seen('#picture img').get_attribute('src')
    found = page.until(rows)
    assert {row[0] for row in found} <= {'car', 'bear'}
    assert all(float(row[1]) >= .01 for row in found)
    assert count_box_pixels(shown) == 0 < count_box_pixels(drawn)
    page.until(lambda: len(all_of('#responses .thumbnail-item img')) == 4)
    assert 'bear: cosine' in seen('#responses').text
    assert count_box_pixels(seen('#before img').get_attribute('src')) > 0
    page.until(lambda: seen('#files').text.count('.json') == 2)
    words.send_keys('\ncar')
    seen('#find').click()
    message = page.until(
        lambda: [toast.text for toast in all_of('.toast-wrap')
                 if toast.text])[0]
    assert "given twice: ['car']" in message
    words.clear()
    words.send_keys('person')
    seen('#find').click()
    page.until(lambda: len(all_of('#responses .thumbnail-item img')) == 2)
    # The other two parts, on a phone.
    driver.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        dict(width=PHONE, height=800, deviceScaleFactor=1, mobile=True))
    click = 'arguments[0].scrollIntoView(); arguments[0].click()'
    driver.execute_script(click, seen('#two_words button'))
    for name, word in (('first', 'car'), ('second', 'bear')):
        seen(f'#{name} textarea, #{name} input').send_keys(word)
    driver.execute_script(click, seen('#compare'))
    seen('#difference img')
    driver.execute_script(click, seen('#many button'))
    seen('#several input[type=file]').send_keys(str(image))
    page.until(lambda: '.jpg' in seen('#several').text)
    driver.execute_script(click, seen('#find_all'))
    seen('#pictures .thumbnail-item img')
    page.until(lambda: seen('#all_files').text.count('.json') == 2)
    # Nothing is cut off, and nothing has to be scrolled sideways.
    assert driver.execute_script(
        'return document.documentElement.scrollWidth') <= PHONE
    folder = os.environ.get('MMDET_CLIM_SCREENSHOTS')
    if folder:
        driver.save_screenshot(f'{folder}/page.png')


def decoded(url):
    data = np.frombuffer(requests.get(url).content, np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def count_box_pixels(url):
    return (decoded(url)[..., ::-1] == BASE_COLOUR).all(-1).sum()


def test_gradio_is_of_a_minor_version_that_was_looked_at(repository):
    # What the page keeps from gradio are calls of its present API.
    setup = ConfigParser()
    setup.read(repository / 'setup.cfg')
    extras = setup['options.extras_require']
    for extra in ('app', 'tests'):
        gradio, = (
            Requirement(line) for line in extras[extra].split('\n')
            if line.startswith('gradio'))
        major, minor = map(int, version('gradio').split('.')[:2])
        assert version('gradio') in gradio.specifier
        assert f'{major}.{minor + 1}.0' not in gradio.specifier


def test_what_is_asked_for_is_checked(run_tool, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'latin').write_bytes('Käse'.encode('latin-1'))
    for arguments, message in (
        ((), '`make demo` trains it'),
        (('--config', 'x.py'), 'give its --checkpoint'),
        (('--checkpoint', 'x.pth'), 'x.pth does not exist'),
        (('--checkpoint', __file__, '--before', 'x.pth'), '--before: x.pth'),
        (('--checkpoint', __file__, '--before-config', 'x.py'),
         'requires --before'),
        (('--score-thr', '2'), 'expected 0 to 1, got 2.0'),
        (('--port', '99999'), 'expected 1 to 65535, got 99999'),
        (('--host', '0.0.0.0'), 'give --password-file'),
        (('--host', '192.0.2.1'), 'give --password-file'),
        (('--password-file', 'none'), 'none does not exist'),
        (('--password-file', 'latin'), "latin cannot be read ('utf-8' codec"),
    ):
        code, log = run_tool('app.py', *arguments)
        assert code == 2 and message in log
