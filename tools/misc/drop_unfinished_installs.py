# Licensed under the Apache License, Version 2.0.
"""Make pip forget packages whose installation was killed half-way.

pip writes ``METADATA``, by which it takes a package for installed, long
before it writes ``INSTALLER``, its last file but one. Without their
``.dist-info`` folder such packages are installed anew, over their remains.
"""
import argparse
import shutil
import site
from pathlib import Path


def main() -> None:
    """Drop what is unfinished in the environment of this Python."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for packages in map(Path, site.getsitepackages()):
        for metadata in packages.glob('*.dist-info'):
            if not (metadata / 'INSTALLER').exists():
                print(f'{metadata.name}: unfinished, dropped')
                shutil.rmtree(metadata)


if __name__ == '__main__':
    main()
