# Licensed under the Apache License, Version 2.0.
"""A page on which images and words are given to a detector.

It needs gradio (the extra ``app``), so nothing else imports it.
"""
import hmac
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .found_files import Entry, write_found
from .inferencer import VIDEO_SUFFIXES
from .page_guard import NoAddresses
from .word_finder import WordFinder, read_words

MAX_FILE_SIZE = '20mb'
#: Of one request.
MAX_FILES = 200
#: Uploads and pictures go after an hour; looked at every ten minutes.
DELETE_EVERY, DELETE_AFTER = 600, 3600
MAX_WAITING = 20
#: As many pictures beside each other as there is room for, on a phone one.
CSS = """
#responses .grid-container, #pictures .grid-container {
    grid-template-columns: repeat(auto-fill, minmax(min(100%, 14rem), 1fr));
}
"""
COLUMNS = ('word', 'score', 'x1', 'y1', 'x2', 'y2')


def build_page(find: WordFinder,
               model: str,
               before: WordFinder | None = None) -> gr.Blocks:
    """The page of one detector, or of one before and after a training.

    Args:
        find (WordFinder): What answers.
        model (str): What the page calls the detector.
        before (WordFinder, optional): An earlier state of the detector, whose
            boxes are shown beside those of ``find``.
    """
    with gr.Blocks(
            title='mmdet_clim',
            analytics_enabled=False,
            delete_cache=(DELETE_EVERY, DELETE_AFTER)) as page:
        answers = _Answers(find, before, Path(page.GRADIO_CACHE))
        gr.Markdown('# Find your own words')
        gr.Textbox(model, label='detector', interactive=False)
        with gr.Row():
            with gr.Column():
                image = _image_input()
                words = gr.Textbox(
                    label='words, one per line or with commas between them; '
                    '"cat = 0.5" has a least score of its own',
                    lines=3,
                    elem_id='words')
                threshold = gr.Slider(
                    0,
                    1,
                    find.find.score,
                    step=0.01,
                    label='least score of a box' +
                    (' of a word without one of its fine-tuning'
                     if find.find.thresholds else ''),
                    elem_id='threshold')
                button = gr.Button('Find', variant='primary', elem_id='find')
            with gr.Column():
                picture = _picture('boxes', 'picture')
                earlier = _picture('boxes before', 'before', before
                                   is not None)
                message = _message('message')
                table = gr.Dataframe(
                    headers=list(COLUMNS),
                    datatype=['str'] + ['number'] * (len(COLUMNS) - 1),
                    interactive=False,
                    label='scores, and corners in pixels of the image',
                    elem_id='table')
                files = _downloads('files')
        responses = gr.Gallery(
            label='where the detector answers to each word, from cold to hot',
            height='auto',
            format='png',
            interactive=False,
            buttons=['download', 'fullscreen'],
            elem_id='responses')
        button.click(
            answers.one, [image, words, threshold],
            [picture, responses, table, message, files, earlier],
            api_name='find')
        with gr.Accordion(
                'Two words compared', open=False, elem_id='two_words'):
            _two_words(answers, image, threshold)
        with gr.Accordion(
                'Many images, a folder, videos', open=False, elem_id='many'):
            _many(answers, words, threshold)
    return page


def _image_input() -> gr.Image:
    """The upload of one image."""
    image = gr.Image(
        type='filepath',
        image_mode=None,
        sources=['upload', 'clipboard'],
        buttons=['fullscreen'],
        label=f'image, at most {MAX_FILE_SIZE.upper()}',
        elem_id='image')
    # As it was uploaded: what gradio says of a file that it can not open is
    # not for users. That the file is an upload has been checked before.
    image.preprocess = _path_of
    return image


def _picture(label: str, name: str, visible: bool = True) -> gr.Image:
    return gr.Image(
        label=label,
        format='png',
        interactive=False,
        visible=visible,
        buttons=['download', 'fullscreen'],
        elem_id=name)


def _message(name: str) -> gr.Textbox:
    return gr.Textbox(label='result', interactive=False, lines=2, elem_id=name)


def _downloads(name: str) -> gr.File:
    return gr.File(
        label='download: JSON, and the same as COCO has it',
        file_count='multiple',
        interactive=False,
        elem_id=name)


def _two_words(answers: '_Answers', image: gr.Image,
               threshold: gr.Slider) -> None:
    """Which of two words the detector answers to more, and where."""
    with gr.Row():
        first = gr.Textbox(label='one word', elem_id='first')
        second = gr.Textbox(label='another', elem_id='second')
    button = gr.Button('Compare in the image above', elem_id='compare')
    with gr.Row():
        difference = _picture('hot: the first word, cold: the second',
                              'difference')
        both = _picture('boxes of both', 'both')
    message = _message('compared')
    button.click(
        answers.two, [image, first, second, threshold],
        [difference, both, message],
        api_name='compare')


def _many(answers: '_Answers', words: gr.Textbox,
          threshold: gr.Slider) -> None:
    """The words above in many files."""
    with gr.Row():
        files = gr.File(
            label=f'images and videos, at most {MAX_FILES} files',
            file_count='multiple',
            elem_id='several')
        folder = gr.File(
            label='or a folder', file_count='directory', elem_id='folder')
    button = gr.Button('Find the words above in all', elem_id='find_all')
    message = _message('found_in_all')
    pictures = gr.Gallery(
        label='images with boxes',
        height='auto',
        format='png',
        interactive=False,
        buttons=['download', 'fullscreen'],
        elem_id='pictures')
    video = gr.Video(
        label='the last video', height=480, interactive=False, elem_id='video')
    downloads = _downloads('all_files')
    button.click(
        answers.many, [files, folder, words, threshold],
        [pictures, video, message, downloads],
        api_name='find_all')


class _Answers:
    """What the buttons do.

    Args:
        find (WordFinder): The detector.
        before (WordFinder, optional): An earlier state of it.
        cache (Path): The page's folder of files, which it empties.
    """

    def __init__(self, find: WordFinder, before: WordFinder | None,
                 cache: Path) -> None:
        self.find = find
        self.before = before
        self.cache = cache

    def one(self, image: str | None, words: str, score_thr: float) -> tuple:
        """Find words in an image."""
        found = _asked(self.find, image, words, score_thr)
        responses, message, earlier = found.responses, found.message, None
        if self.before is not None:
            other = _asked(self.before, image, words, score_thr)
            earlier = other.picture
            message += f' Before: {other.message}'
            # Of a word both, one after the other.
            responses = [
                picture for before, after in zip(other.responses, responses)
                for picture in ((before[0], f'before, {before[1]}'), after)
            ] or responses
        files = self._written([(Path(image or '').name, found.entry)], words)
        return (found.picture, responses, found.rows, message, files, earlier)

    def two(self, image: str | None, first: str, second: str,
            score_thr: float) -> tuple:
        """Compare two words."""
        return tuple(
            _asked(self.find.compare, image, first, second, score_thr))

    def many(self, files: list[str] | None, folder: list[str] | None,
             words: str, score_thr: float) -> tuple:
        """Find words in images and videos, without those that are none."""
        _asked(read_words, words, score_thr)
        paths = [Path(file) for file in [*(files or ()), *(folder or ())]]
        if not 0 < len(paths) <= MAX_FILES:
            raise gr.Error(
                f'expected 1 to {MAX_FILES} files, got {len(paths)}',
                print_exception=False)
        pictures: list[tuple[Any, str]] = []
        entries: list[Entry] = []
        left_out: list[str] = []
        videos: list[str] = []
        for path in paths:
            try:
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    drawn = self._new_folder() / f'{path.stem}.webm'
                    frames = self.find.video(path, words, score_thr, drawn)
                    videos.append(str(drawn))
                    entries.append((path.name, frames))
                else:
                    found = self.find(path, words, score_thr, with_maps=False)
                    pictures.append(
                        (found.picture, f'{path.name}: {found.message}'))
                    entries.append((path.name, found.entry))
            except (ValueError, OSError) as error:
                left_out.append(f'{path.name} ({error})')
        message = (f'Images: {len(pictures)}, videos: {len(videos)}, '
                   f'boxes: {_count_boxes(entries)}.')
        if left_out:
            message += f' Left out: {"; ".join(left_out)}.'
        return (pictures, videos[-1] if videos else None, message,
                [*self._written(entries, words), *videos])

    def _written(self, entries: Sequence[Entry], words: str) -> list[str]:
        """The files for other programs."""
        return [
            str(path) for path in write_found(self._new_folder(), entries,
                                              list(read_words(words, 0)))
        ]

    def _new_folder(self) -> Path:
        self.cache.mkdir(parents=True, exist_ok=True)
        return Path(mkdtemp(dir=self.cache))


def _count_boxes(entries: Sequence[Entry]) -> int:
    frames = [
        frame for _, of in entries
        for frame in ([of] if isinstance(of, dict) else of)
    ]
    return sum(len(frame['boxes']) for frame in frames)


def serve(page: gr.Blocks,
          host: str,
          port: int,
          names: Sequence[str],
          password: str | None = None) -> None:
    """Answer until the program is told to stop.

    Nothing is shared, kept in the browser or sent to anyone; fonts are those
    of the browser's system. Neither is anything answered that asks for
    another host than this one, nor fetched from one.

    Args:
        page (gr.Blocks): What :func:`build_page` returned.
        host (str): Address of the interface to listen on.
        port (int): A free one.
        names (Sequence[str]): What browsers call this host. A page elsewhere
            may have its own name lead to this machine (DNS rebinding), but
            its browser still asks for that name.
        password (str, optional): What a browser has to give, with any user
            name, before it sees anything.

    Raises:
        OSError: If the port is taken.
    """
    page.queue(max_size=MAX_WAITING).launch(
        server_name=host,
        server_port=port,
        auth=password and partial(_is_password, password),
        app_kwargs=dict(middleware=[
            Middleware(
                TrustedHostMiddleware,
                allowed_hosts=list(names),
                www_redirect=False),
            Middleware(NoAddresses),
        ]),
        css=CSS,
        share=False,
        show_error=True,
        max_file_size=MAX_FILE_SIZE,
        theme=gr.themes.Default(
            font=['system-ui', 'sans-serif'],
            font_mono=['ui-monospace', 'monospace']),
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False)


def _is_password(password: str, user: str, given: str) -> bool:
    return hmac.compare_digest(password.encode(), given.encode())


def _path_of(upload: ImageData | None) -> str | None:
    return upload and upload.path


def _asked(function: Callable, *arguments: Any) -> Any:
    """What a function returns, or its error for the user."""
    try:
        return function(*arguments)
    except ValueError as error:
        # The page takes messages for HTML, and these quote the user's words.
        raise gr.Error(
            escape(str(error)), duration=None,
            print_exception=False) from error
