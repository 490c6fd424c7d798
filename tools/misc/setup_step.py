# Licensed under the Apache License, Version 2.0.
"""Run one step of the set-up, and show one line of it.

The output of the step's command goes to the log. On a terminal, the line shows
the progress of the step and the remaining time of the set-up; otherwise it is
printed when the step has ended, and from time to time before. If the command
fails, the end of the log is shown.

Called by make with the Python that makes the environment: only the standard
library is there.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, NamedTuple


class Step(NamedTuple):
    """What is known of a step before it runs.

    Attributes:
        seconds (float): That it took on two cores (docs/install.md).
        packages (int): That pip installs.
    """
    seconds: float
    packages: int = 0


# Of each part of the set-up in order, the steps that follow each other.
PLANS = {
    'set-up': {
        'venv': Step(5),
        'build-tools': Step(3, 6),
        'torch': Step(40, 14),
        'requirements': Step(90, 125),
        'openmmlab': Step(6, 5),
        'mmcv': Step(75),
        'package': Step(6),
    },
    'docs': {
        'docs': Step(20, 25),
    },
    'onedl': {
        'onedl-venv': Step(5),
        'onedl-build-tools': Step(3, 6),
        'onedl-requirements': Step(130, 140),
        'onedl-openmmlab': Step(10, 8),
        'onedl-mmcv': Step(110),
    },
}
TAIL = 20
# To the second line where there is no terminal, seconds. Each later pause is
# twice as long.
PAUSE = 60
COLLECTING = re.compile(r'^\s*(?:Collecting|Requirement already satisfied:) '
                        r'([\w.-]+)')
DOWNLOADING = re.compile(r'^\s*Downloading (\S+) \(([\d.]+) ([kMG]B)\)')
INSTALLING = re.compile(r'^Installing collected packages: (.*)')
PROGRESS = re.compile(r'^progress: (\d+) %, (.*)')
UNITS = dict(kB=1e3, MB=1e6, GB=1e9)
# A file whose download is shown, bytes.
LARGE = 10e6
# What pip and compilers print far above the last lines, or say otherwise.
CAUSES = (
    (re.compile(r'No space left on device|Disk quota exceeded|File too large'),
     'there is no space left on the disk'),
    (re.compile(r'Retrying \(Retry\(total=0'),
     'pip did not reach the package index: see to the network, or to '
     'PIP_INDEX_URL and PIP_PROXY'),
)


class Progress:
    """How far a command is, by what it prints and where it downloads.

    Args:
        packages (int): That pip is expected to install.
        folder (Path): Where pip keeps files while it downloads them.
        environment (Path): Into which pip installs.
    """

    def __init__(self, packages: int, folder: Path, environment: Path) -> None:
        self._packages = packages
        self._environment = environment
        self._start = time.time()
        self._installing = 0
        self._folder = folder
        self._fraction = 0.
        self._collected = 0
        self._file = ''
        self._size = 0.
        self._doing = ''
        #: Why the command will fail, as far as is known.
        self.cause = ''

    def read(self, line: str) -> None:
        """Take note of a line of the command's output."""
        for pattern, cause in CAUSES:
            if pattern.search(line):
                self.cause = cause
        for pattern, note in ((COLLECTING, self._collect), (DOWNLOADING,
                                                            self._download),
                              (INSTALLING, self._install), (PROGRESS,
                                                            self._progress)):
            found = pattern.match(line)
            if found:
                note(*found.groups())

    def _collect(self, name: str) -> None:
        self._collected += 1
        self._size = 0.
        self._doing = f'collecting {name}'
        # Half of the way; fewer packages are installed than collected.
        if self._packages:
            self._fraction = min(0.5, 0.5 * self._collected / self._packages)

    def _download(self, file: str, number: str, unit: str) -> None:
        self._file = file
        self._size = float(number) * UNITS[unit]

    def _install(self, names: str) -> None:
        self._size = 0.
        self._installing = len(names.split(', '))

    def _progress(self, percent: str, doing: str) -> None:
        self._fraction, self._doing = int(percent) / 100, doing
        self._size = 0.

    def state(self) -> tuple:
        """The known fraction of the work, and what is being done."""
        if self._installing:
            # pip's last file but one of a package.
            count = sum(file.stat().st_mtime > self._start
                        for file in self._environment.glob(
                            'lib/*/site-packages/*.dist-info/INSTALLER'))
            return (0.5 + 0.5 * min(1, count / self._installing),
                    f'installing, {count} of {self._installing} packages')
        if self._size < LARGE:
            return self._fraction, self._doing
        done = sum(file.stat().st_size
                   for file in self._folder.glob(f'pip-unpack-*/{self._file}'))
        return self._fraction, (f'downloading {self._file.split("-")[0]}, '
                                f'{done / 1e6:.0f} of {self._size / 1e6:.0f} '
                                'MB')


class Clock:
    """How long a step, and what follows it, will still take.

    Args:
        plan (dict[str, Step]): The steps in order.
        name (str): Of the step that runs.
        file (Path): Names and seconds of earlier steps.
    """

    def __init__(self, plan: dict, name: str, file: Path) -> None:
        self._file = file
        self._plan = plan
        self._name = name
        names = list(plan)
        self.number = names.index(name) + 1
        taken = dict(self._read())
        before = [x for x in names[:self.number - 1] if x in taken]
        # One minute as expected: a short first step says little.
        self._pace = ((60 + sum(taken[x] for x in before)) /
                      (60 + sum(plan[x].seconds for x in before)))
        self._later = sum(plan[x].seconds for x in names[self.number:])
        self._start = time.monotonic()
        # The latest fraction, and when it was reached.
        self._known = 0., 0.

    def _read(self) -> list[tuple]:
        if not self._file.exists():
            return []
        lines = (line.split() for line in self._file.read_text().splitlines())
        return [(line[0], float(line[1])) for line in lines if len(line) == 2]

    @property
    def elapsed(self) -> float:
        """Seconds that the step has run."""
        return time.monotonic() - self._start

    def left(self, fraction: float) -> float:
        """Seconds to the end of the last step.

        Args:
            fraction (float): Known part of this step's work that is done.
        """
        expected = self._plan[self._name].seconds * self._pace
        if fraction != self._known[0]:
            self._known = fraction, self.elapsed
        fraction, seconds = self._known
        if fraction > 0:
            # From a quarter on, its own pace alone counts.
            weight = min(1, 4 * fraction)
            expected += weight * (seconds / fraction - expected)
        return (max(expected - self.elapsed, 0.05 * expected) +
                self._later * self._pace)

    def finish(self) -> float:
        """Seconds of all steps of the plan after this one, its time noted."""
        taken = {**dict(self._read()), self._name: self.elapsed}
        self._file.write_text(''.join(f'{name} {seconds:.1f}\n'
                                      for name, seconds in taken.items()))
        return self._later * self._pace


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min'


class Line:
    """One line on a terminal, or a few where there is none."""

    def __init__(self) -> None:
        self._terminal = (
            sys.stdout.isatty() and os.environ.get('TERM') != 'dumb')
        self._pause = PAUSE
        self._next = time.monotonic() + self._pause

    def update(self, text: str) -> None:
        """Show how far it is."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f'\r\033[K{text[:width]}', end='', flush=True)
        elif time.monotonic() >= self._next:
            print(text, flush=True)
            self._pause *= 2
            self._next = time.monotonic() + self._pause

    def finish(self, text: str) -> None:
        """Show what came out."""
        print(f'\r\033[K{text}' if self._terminal else text, flush=True)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'step', choices=[name for plan in PLANS.values() for name in plan])
    parser.add_argument('title', help='text that the line begins with')
    parser.add_argument('log', type=Path, help='file for the output')
    parser.add_argument('command', nargs='+')
    return parser.parse_args()


def open_log(path: Path, title: str) -> IO[bytes]:
    """Begin a log with each run of make, which MAKE_RUN tells apart.

    Returns:
        file: Without a buffer, which could not be written on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = f'make run {os.environ.get("MAKE_RUN", os.getppid())}\n'
    known = False
    if path.exists():
        with open(path, errors='replace') as file:
            known = file.readline() == header
    if not known:
        path.write_text(header)
        print(f'output of pip and compilers: {path}', flush=True)
    log = open(path, 'ab', buffering=0)
    log.write(f'\n== {title}\n'.encode())
    return log


def run(args: argparse.Namespace) -> int:
    """Run the command and give back its exit status."""
    plan_name, plan = next(item for item in PLANS.items()
                           if args.step in item[1])
    log = open_log(args.log, args.title)
    clock = Clock(plan, args.step, args.log.parent / 'step-times.txt')
    head = f'{plan_name} {clock.number}/{len(plan)}, {args.title}:'
    line = Line()
    with log, tempfile.TemporaryDirectory(
            prefix='tmp', dir=args.log.parent) as folder:
        progress = Progress(plan[args.step].packages, Path(folder),
                            Path(args.command[0]).parent.parent)
        process = subprocess.Popen(
            args.command,
            # With all that it starts, so that it can be stopped.
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            env={
                **os.environ, 'TMPDIR': folder,
                'PIP_PROGRESS_BAR': 'off',
                'PYTHONUNBUFFERED': '1'
            })

        def copy() -> None:
            for text in process.stdout:
                progress.read(text)
                try:
                    log.write(text.encode(errors='replace'))
                except OSError as error:
                    # The command would wait for ever for a reader.
                    progress.read(str(error))

        reader = threading.Thread(target=copy, daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                fraction, doing = progress.state()
                line.update(f'{head} {100 * fraction:.0f} %, about '
                            f'{duration(clock.left(fraction))} left '
                            f'of the {plan_name}{doing and ", " + doing}')
                time.sleep(0.3)
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            line.finish(f'{head} stopped; the same command resumes here')
            return 130
        reader.join()
    if process.returncode:
        line.finish(f'{head} failed after {duration(clock.elapsed)}')
        tail = args.log.read_text(errors='replace').splitlines()[-TAIL:]
        print('\n'.join(f'    {text}' for text in tail))
        cause = progress.cause and (
            f': {progress.cause}; then give the same command again')
        print(f'{args.title}: failed, see {args.log}{cause}', flush=True)
        return process.returncode if process.returncode > 0 else 1
    seconds = clock.elapsed
    left = clock.finish()
    rest = f', about {duration(left)} left' if left else ''
    line.finish(f'{head} {duration(seconds)}{rest}')
    return 0


if __name__ == '__main__':
    # make sends it where it is stopped itself.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = parse_args()
    try:
        sys.exit(run(arguments))
    except OSError as error:
        sys.exit(f'{arguments.title}: {error}')
