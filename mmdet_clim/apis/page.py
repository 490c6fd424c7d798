# Licensed under the Apache License, Version 2.0.
"""A page on which images and words are given to a detector.

It needs gradio (the extra ``app``), so nothing else imports it.
"""
import hmac
from functools import partial
from html import escape
from typing import Optional, Sequence

import gradio as gr
from gradio.data_classes import ImageData
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .page_guard import NoAddresses
from .word_finder import Found, WordFinder

MAX_FILE_SIZE = '20mb'
#: Uploads and pictures go after an hour; looked at every ten minutes.
DELETE_EVERY, DELETE_AFTER = 600, 3600
MAX_WAITING = 20
COLUMNS = ('word', 'score', 'x1', 'y1', 'x2', 'y2')


def build_page(find: WordFinder, model: str, score_thr: float) -> gr.Blocks:
    """The page of one detector.

    Args:
        find (WordFinder): What answers.
        model (str): What the page calls the detector.
        score_thr (float): Where the slider stands at first.
    """
    with gr.Blocks(
            title='mmdet_clim',
            analytics_enabled=False,
            delete_cache=(DELETE_EVERY, DELETE_AFTER)) as page:
        gr.Markdown('# Find your own words')
        gr.Textbox(model, label='detector', interactive=False)
        with gr.Row():
            with gr.Column():
                image = gr.Image(
                    type='filepath',
                    image_mode=None,
                    sources=['upload', 'clipboard'],
                    buttons=['fullscreen'],
                    label=f'image, at most {MAX_FILE_SIZE.upper()}',
                    elem_id='image')
                # As it was uploaded: what gradio says of a file that it can
                # not open is not for users. That the file is an upload has
                # been checked before.
                image.preprocess = _path_of
                words = gr.Textbox(
                    label='words, one per line or with commas between them',
                    lines=3,
                    elem_id='words')
                threshold = gr.Slider(
                    0,
                    1,
                    score_thr,
                    step=0.01,
                    label='least score of a box',
                    elem_id='threshold')
                button = gr.Button('Find', variant='primary', elem_id='find')
            with gr.Column():
                picture = gr.Image(
                    label='boxes',
                    format='png',
                    interactive=False,
                    buttons=['download', 'fullscreen'],
                    elem_id='picture')
                message = gr.Textbox(
                    label='result', interactive=False, elem_id='message')
                table = gr.Dataframe(
                    headers=list(COLUMNS),
                    datatype=['str'] + ['number'] * (len(COLUMNS) - 1),
                    interactive=False,
                    label='scores, and corners in pixels of the image',
                    elem_id='table')
        responses = gr.Gallery(
            label='where the detector answers to each word, from cold to hot',
            columns=4,
            format='png',
            interactive=False,
            buttons=['download', 'fullscreen'],
            elem_id='responses')
        button.click(
            partial(_answer, find), [image, words, threshold],
            [picture, responses, table, message],
            api_name='find')
    return page


def serve(page: gr.Blocks,
          host: str,
          port: int,
          names: Sequence[str],
          password: Optional[str] = None) -> None:
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


def _path_of(upload: Optional[ImageData]) -> Optional[str]:
    return upload and upload.path


def _answer(find: WordFinder, image: Optional[str], words: str,
            score_thr: float) -> Found:
    try:
        return find(image, words, score_thr)
    except ValueError as error:
        # The page takes messages for HTML, and these quote the user's words.
        raise gr.Error(
            escape(str(error)), duration=None,
            print_exception=False) from error
