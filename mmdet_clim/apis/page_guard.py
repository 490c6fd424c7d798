# Licensed under the Apache License, Version 2.0.
"""What the page refuses before gradio sees it."""
import json
import re
from typing import Any
from urllib.parse import unquote

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Of a call; a file comes by another way.
MAX_CALL_BYTES = 1 << 20
_ADDRESS = re.compile(r'\s*[a-z][a-z0-9+.-]*:/', re.I)
_UPLOAD = '/upload'


class NoAddresses:
    """Refuses calls that name a file somewhere in the web.

    Of a call that is written by hand, gradio would fetch ``path``, whatever
    its size, and for a part of the page that is no file too. Uploads pass.

    Args:
        app (ASGIApp): What answers all other requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive,
                       send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        refusal = None
        path = scope['path']
        if '=' in path and _ADDRESS.match(unquote(path.partition('=')[2])):
            refusal = 'expected a file of this page, got a URL'
        elif scope['method'] == 'POST' and not path.endswith(_UPLOAD):
            body = await _read(receive)
            receive = _Replayed(body, receive)
            refusal = _refusal(body)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            answer = JSONResponse(dict(error=refusal), status_code=400)
            await answer(scope, receive, send)


class _Replayed:
    """Gives the body that was read, and then what comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.body = body
        self.receive = receive
        self.given = False

    async def __call__(self) -> Message:
        if self.given:
            return await self.receive()
        self.given = True
        return dict(type='http.request', body=self.body, more_body=False)


async def _read(receive: Receive) -> bytes:
    """The body of a request, or a byte more than is allowed."""
    body = b''
    while len(body) <= MAX_CALL_BYTES:
        message = await receive()
        body += message.get('body', b'')
        if not message.get('more_body', False):
            break
    return body[:MAX_CALL_BYTES + 1]


def _refusal(body: bytes) -> Any:
    """Why a call is not passed on; None if it is."""
    if len(body) > MAX_CALL_BYTES:
        return f'expected a call of at most {MAX_CALL_BYTES} bytes'
    try:
        return 'expected an upload, got a URL' if _names_address(
            json.loads(body)) else None
    except RecursionError:
        return 'expected a call, got JSON that is nested too deeply'
    except ValueError:
        # A form, such as that of the password.
        return None


def _names_address(value: Any) -> bool:
    """Whether a file in a call is an address.

    The ``url`` of a file is where the browser found it on this page, and
    nothing that gradio reads.
    """
    if isinstance(value, list):
        return any(map(_names_address, value))
    if not isinstance(value, dict):
        return False
    path = value.get('path')
    return isinstance(path, str) and _ADDRESS.match(path) is not None or any(
        map(_names_address, value.values()))
