# Licensed under the Apache License, Version 2.0.
"""A report as one HTML file: texts, tables and pictures in sections."""
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment
from PIL import Image

from mmdet_clim.files import atomic_path

# Names of classes and files are data: they are escaped.
PAGE = Environment(autoescape=True).from_string("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 sans-serif; max-width: 62em; margin: 2em auto;
  padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: .2em .8em; border-bottom: 1px solid #ccc; text-align: left }
img { max-width: 100%; margin: 1em 0 }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for section in sections %}
<h2>{{ section.title }}</h2>
{% for line in section.texts %}
<p>{{ line }}</p>
{% endfor %}
{% if section.rows %}
<table>
<tr>{% for head in section.heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in section.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
{% if section.picture %}
<img alt="{{ section.title }}" src="data:image/{{ section.kind }};base64,
{{- section.picture }}">
{% endif %}
{% endfor %}
</body>
</html>
""")


@dataclass
class Section:
    """A part of a report.

    Args:
        title (str): Its heading.
        texts (Sequence[str]): Paragraphs.
        heads (Sequence[str]): Heads of the columns of its table.
        rows (Sequence[Sequence]): Cells of its table, row by row.
        image (ndarray or Path, optional): Its picture: uint8 RGB (H, W, 3),
            or the file of a PNG.
    """

    title: str
    texts: Sequence[str] = ()
    heads: Sequence[str] = ()
    rows: Sequence[Sequence] = ()
    image: np.ndarray | str | Path | None = None
    kind: str = field(init=False, default='png')
    picture: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        content = None
        if isinstance(self.image, np.ndarray):
            buffer = BytesIO()
            Image.fromarray(self.image).save(buffer, 'JPEG', quality=88)
            content, self.kind = buffer.getvalue(), 'jpeg'
        elif self.image is not None:
            content = Path(self.image).read_bytes()
        if content is not None:
            self.picture = base64.b64encode(content).decode()


def write_report(path: Path, title: str, sections: list[Section]) -> None:
    """Write a report that needs no other file.

    Args:
        path (Path): The HTML file; it never holds half of a page.
        title (str): Heading of the page.
        sections (list[Section]): Its parts.
    """
    with atomic_path(path) as beside:
        beside.write_text(
            PAGE.render(title=title, sections=sections), encoding='utf-8')
