# Licensed under the Apache License, Version 2.0.
"""Install mmcv with operators that work with this Python's torch.

Keeps an installed mmcv if its operators give the right results; otherwise
installs a suitable wheel from PIP_FIND_LINKS, or builds one from source, where
an interrupted build continues with the missing files. If CUDA operators can be
built, a version without them is replaced. Writes BUILD_FOLDER/cpu-only if the
operators do not support CUDA.
"""
import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What ninja says of a file that compiled, and of one that did not.
COMPILED = re.compile(r'^\[\d+/(\d+)\] .* -o \S+\.o\b')
FAILED = re.compile(r'^FAILED: (?:\[.*?\] )?(\S+)')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('version', help='version of mmcv')
    parser.add_argument('build', type=Path, help='folder for the build')
    parser.add_argument(
        '--distribution',
        default='mmcv',
        help='distribution that provides mmcv, such as onedl-mmcv '
        '(%(default)s)')
    return parser.parse_args()


def pip(*words: str, check: bool = True) -> bool:
    """Run pip of this Python; say whether it succeeded."""
    command = [sys.executable, '-I', '-m', 'pip', *words]
    return subprocess.run(command, check=check).returncode == 0


def operators_work(args: argparse.Namespace, cuda: bool) -> bool:
    """Compare the operators with their formulas.

    Args:
        args (argparse.Namespace): The command line.
        cuda (bool): Whether they have to know CUDA.
    """
    cpu_only = args.build / 'cpu-only'
    done = subprocess.run([
        sys.executable, HERE / 'check_mmcv_operators.py', args.version,
        cpu_only
    ])
    return done.returncode == 0 and not (cuda and cpu_only.exists())


def source_of(args: argparse.Namespace) -> Path:
    """Download and unpack the source, once."""
    stem = f'{args.distribution.replace("-", "_")}-{args.version}'
    source = args.build / stem
    if not source.exists():
        pip('download', '--no-deps',
            '--no-build-isolation', '--no-binary', args.distribution, '--dest',
            str(args.build), f'{args.distribution}=={args.version}')
        unpacked = args.build / 'unpacked'
        shutil.rmtree(unpacked, ignore_errors=True)
        shutil.unpack_archive(args.build / f'{stem}.tar.gz', unpacked)
        (unpacked / stem).rename(source)
    return source


def no_cuda() -> 'str | None':
    """Say why the operators can not be built with CUDA, or None if they can.

    FORCE_CUDA=1 asks mmcv for CUDA on a machine without a GPU.
    """
    import torch
    if os.environ.get('FORCE_CUDA') == '1':
        return None
    if not torch.cuda.is_available():
        return 'torch finds no GPU'
    if torch.version.hip is not None:
        return None
    return nvcc_misfit(torch.version.cuda)


def nvcc_misfit(cuda: str) -> 'str | None':
    """Say why nvcc can not compile for torch, or None if it can.

    Args:
        cuda (str): CUDA's version that torch was built with, such as '13.0'.
    """
    from torch.utils.cpp_extension import CUDA_HOME
    nvcc = shutil.which('nvcc', path=f'{CUDA_HOME}/bin')
    if nvcc is None:
        return 'there is no nvcc'
    text = subprocess.run([nvcc, '--version'], capture_output=True,
                          text=True).stdout
    found = re.search(r'release (\d+)\.\d+', text)
    if found is None or found[1] != cuda.split('.')[0]:
        return (f'torch was built with CUDA {cuda}, and {nvcc} is '
                f'{found[0] if found else "of an unknown version"}')
    return None


def build_wheel(source: Path, wheel_dir: Path, cuda: bool) -> Path:
    """Build with joined files, and with single ones where that fails.

    Args:
        source (Path): The unpacked source.
        wheel_dir (Path): Gets the wheel.
        cuda (bool): Whether with the CUDA sources.

    Returns:
        Path: The wheel.
    """
    environment = dict(
        os.environ,
        MMCV_WITH_OPS='1',
        # Fewer optimisations and no debug symbols halve the time.
        CFLAGS=os.environ.get('MMCV_CFLAGS', '-g0 -O1'),
        # GNU's linker and Apple's know both of them.
        LDFLAGS='-Wl,-S -Wl,-x',
        PYTHONPATH='',
        # torch looks for the environment's ninja there.
        PATH=os.pathsep.join([
            str(Path(sys.executable).parent),
            os.environ.get('PATH', os.defpath)
        ]),
        # mmcv's own choice is four at least.
        MAX_JOBS=os.environ.get('MAX_JOBS', str(os.cpu_count() or 1)))
    if not cuda:
        environment['CUDA_VISIBLE_DEVICES'] = ''
    separate: list[str] = []
    while True:
        command = [
            sys.executable, HERE / 'build_mmcv_wheel.py', '--wheel-dir',
            wheel_dir, '--separate', *separate
        ]
        failed = run_build(command, source, environment)
        if failed is None:
            return max(wheel_dir.glob('*.whl'), key=os.path.getmtime)
        new = {Path(path).stem for path in failed} - set(separate)
        new &= {path.stem for path in (source / 'joined').iterdir()}
        if not new:
            sys.exit(f'mmcv: {" ".join(sorted(failed)) or "the build"} failed')
        print(
            f'joined files failed: {sorted(new)}, their sources are '
            'compiled one by one',
            flush=True)
        separate += sorted(new)


def run_build(command: list, source: Path,
              environment: dict[str, str]) -> 'set[str] | None':
    """Run the build, and print how far it is.

    Returns:
        set[str] or None: Objects that failed; None if all went well.
    """
    process = subprocess.Popen(
        command,
        cwd=source,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace')
    print('progress: 5 %, compiling', flush=True)
    failed, done = set(), 0
    for line in process.stdout:
        print(line, end='', flush=True)
        failed.update(FAILED.findall(line))
        compiled = COMPILED.match(line)
        if compiled:
            done += 1
            total = int(compiled[1])
            # The rest is downloaded, linked and installed.
            print(
                f'progress: {5 + 85 * done // total} %, compiled {done} of '
                f'{total} files',
                flush=True)
    return failed if process.wait() else None


def main() -> None:
    """Install mmcv where it is not."""
    args = parse_args()
    args.build = args.build.resolve()
    args.build.mkdir(parents=True, exist_ok=True)
    reason = no_cuda()
    if reason is not None:
        print(f'{reason}: the operators will be for the CPU only', flush=True)
    cuda = reason is None
    if importlib.util.find_spec('mmcv') and operators_work(args, cuda):
        print('mmcv: is installed')
        return
    wanted = f'{args.distribution}=={args.version}'
    if pip(
            'install',
            '--no-deps',
            '--no-index',
            '--force-reinstall',
            '--only-binary',
            args.distribution,
            wanted,
            check=False) and operators_work(args, cuda):
        print('mmcv: took a wheel that is there')
        return
    wheel = build_wheel(source_of(args), args.build / 'wheel', cuda)
    pip('install', '--no-deps', '--force-reinstall', str(wheel))
    if not operators_work(args, cuda):
        sys.exit(1)


if __name__ == '__main__':
    main()
