# Licensed under the Apache License, Version 2.0.
"""Say in one line whether mmcv's operators know the GPU.

Imports the package before, so that a stack that cannot work is refused.
"""
import argparse


def main() -> None:
    """Print the line."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    # Late: these take seconds to import.
    import mmdet_clim  # noqa: F401  isort: skip
    import mmcv
    import torch
    from mmcv.utils import ext_loader
    extension = ext_loader.load_ext('_ext', ['get_compiling_cuda_version'])
    cuda = extension.get_compiling_cuda_version()
    gpu = (torch.cuda.get_device_name() if torch.cuda.is_available() else None)
    operators = f'mmcv {mmcv.__version__}: its operators'
    if cuda == 'not available':
        where = 'are for the CPU only' + (
            '; torch finds no GPU either' if gpu is None else
            f', so that {gpu} is not used: docs/install.md, "Operators for '
            'the GPU"')
    elif gpu is None:
        where = f'know CUDA {cuda}, but torch finds no GPU'
    else:
        where = f'know the GPU ({gpu}, CUDA {cuda})'
    print(operators, where)


if __name__ == '__main__':
    main()
