# Licensed under the Apache License, Version 2.0.
"""What follows from the address of the repository; the rest is in setup.cfg.

The description on PyPI is the README, whose links lead within the repository.
Where setup.cfg has the address, as ``url``, they become absolute, and the
metadata lists the project's pages. Where it has none, their words are left.
"""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
#: Of Markdown: `](` and a target that is no address and no heading.
IMAGE = re.compile(r'(!\[[^\]]*\]\()(?!\w+:|#)')
LINK = re.compile(r'(\]\()(?!\w+:|#)')
#: The same with text and target; the text of a link may be an image.
WHOLE_IMAGE = re.compile(r'!\[([^\]]*)\]\((?!\w+:|#)[^)]*\)')
WHOLE_LINK = re.compile(r'\[((?:!\[[^\]]*\]\([^)]*\)|[^\[\]])*)\]'
                        r'\((?!\w+:|#)[^)]*\)')


def description(readme: str, address: str | None) -> str:
    """Make the links of a README absolute, or leave their words alone.

    Args:
        readme (str): Markdown.
        address (str, optional): Of the repository.
    """
    if not address:
        return WHOLE_LINK.sub(r'\1', WHOLE_IMAGE.sub(r'\1', readme))
    readme = IMAGE.sub(rf'\g<1>{address}/raw/main/', readme)
    return LINK.sub(rf'\g<1>{address}/blob/main/', readme)


def project_urls(address: str | None) -> dict[str, str]:
    """The pages that PyPI links to.

    Args:
        address (str, optional): Of the repository.
    """
    paper = dict(Paper='https://arxiv.org/abs/2312.11376')
    if not address:
        return paper
    return dict(
        paper,
        Changelog=f'{address}/blob/main/CHANGELOG.md',
        Documentation=f'{address}/blob/main/docs/index.md',
        Issues=f'{address}/issues')


if __name__ == '__main__':
    config = ConfigParser()
    config.read(ROOT / 'setup.cfg', encoding='utf-8')
    url = config.get('metadata', 'url', fallback='').rstrip('/')
    setup(
        project_urls=project_urls(url),
        long_description=description(
            (ROOT / 'README.md').read_text(encoding='utf-8'), url),
        long_description_content_type='text/markdown')
