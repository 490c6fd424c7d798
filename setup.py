# Licensed under the Apache License, Version 2.0.
"""The description on PyPI; everything else is in setup.cfg.

It is the README, whose links lead within the repository: on PyPI they need
its address.
"""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
#: Of Markdown: `](` and a target that is no address and no heading.
IMAGE = re.compile(r'(!\[[^\]]*\]\()(?!\w+:|#)')
LINK = re.compile(r'(\]\()(?!\w+:|#)')


def description(readme: str, address: str) -> str:
    """Make the links of a README absolute.

    Args:
        readme (str): Markdown.
        address (str): Of the repository.
    """
    readme = IMAGE.sub(rf'\g<1>{address}/raw/main/', readme)
    return LINK.sub(rf'\g<1>{address}/blob/main/', readme)


if __name__ == '__main__':
    config = ConfigParser()
    config.read(ROOT / 'setup.cfg', encoding='utf-8')
    setup(
        long_description=description(
            (ROOT / 'README.md').read_text(encoding='utf-8'),
            config['metadata']['url']),
        long_description_content_type='text/markdown')
