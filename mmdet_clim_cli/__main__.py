# Licensed under the Apache License, Version 2.0.
"""``clim COMMAND ...``: the tools of mmdet_clim under one name.

A command is a script in ``tools/``, in the tree or in the installed package,
and gets the arguments after its name: ``clim train CONFIG`` is ``python
tools/train.py CONFIG``, and ``mim train mmdet_clim CONFIG`` runs it too.
"""
import argparse
import runpy
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from . import options


class Command(NamedTuple):
    """A script below ``tools/``, and what it does."""

    script: str
    summary: str


class Group(NamedTuple):
    """Commands of one kind, and what they do."""

    commands: dict[str, Command]
    summary: str


COMMANDS: dict[str, Command | Group] = dict(
    train=Command('train.py', 'train a detector that a config describes'),
    test=Command('test.py', 'evaluate a checkpoint'),
    infer=Command('infer.py', 'detect your own classes in images or videos'),
    app=Command('app.py', 'the same as a web page on this machine'),
    finetune=Command(
        'finetune.py', 'train a detector for your classes from captioned '
        'images'),
    download=Command('download.py',
                     'download published weights and data sets'),
    demo=Command('demo.py', 'show the effect of CLIM, without a download'),
    export=Command('export_onnx.py', 'export a detector to ONNX'),
    onnx=Command('run_onnx.py', 'run an exported detector on images'),
    embed=Command('embeddings/embed_classes.py',
                  'write the embeddings of class names to a file'),
    convert=Command('checkpoints/convert_published.py',
                    'convert a published checkpoint of Detic, BARON, ...'),
    strip=Command('checkpoints/strip_wrapper.py',
                  'remove the CLIM wrapper from a checkpoint'),
    share=Command('share.py',
                  'save a detector as a folder, or push it to the Hub'),
    publish=Command('checkpoints/publish_weights.py',
                    'reduce a checkpoint to its weights'),
    config=Command('misc/print_config.py', 'print a resolved config'),
    prepare=Group(
        dict([
            ('captions',
             Command('datasets/prepare_image_text.py',
                     'your own captioned images')),
            ('ov-coco', Command('datasets/prepare_ov_coco.py', 'OV-COCO')),
            ('ov-lvis', Command('datasets/prepare_ov_lvis.py', 'OV-LVIS')),
            ('coco-small',
             Command('datasets/prepare_coco_small.py',
                     'photographs of val2017, small')),
            ('cc3m', Command('datasets/prepare_cc3m.py', 'CC3M')),
            ('openmoji',
             Command('datasets/make_openmoji_coco.py',
                     'draw OpenMoji-COCO, which needs no download')),
        ]), 'prepare annotation files for training'),
    visualize=Group(
        dict(
            mosaics=Command('visualization/browse_mosaics.py',
                            'training samples, as the model gets them'),
            maps=Command('visualization/response_maps.py',
                         'where models respond to texts'),
            nearest=Command('visualization/nearest_texts.py',
                            'captions nearest to regions, and vice versa'),
            detections=Command('visualization/compare_detections.py',
                               'detections of several detectors')),
        'draw data, detections and features'),
    analyze=Group(
        dict(
            runs=Command('analysis/compare_runs.py',
                         'table and curves of finished runs'),
            classes=Command('analysis/class_ap.py', 'AP of each class'),
            intervals=Command('analysis/bootstrap_ap.py',
                              'intervals of AP50 over images'),
            errors=Command(
                'analysis/error_types.py', 'what limits AP50: localisation or '
                'classification'),
            ablation=Command('analysis/ablation.py',
                             'train a list of configs with several seeds')),
        'compare runs and their results'),
)


def _parser(prog: str, commands: Mapping[str, Command | Group],
            description: str) -> argparse.ArgumentParser:
    width = max(map(len, commands))
    listed = '\n'.join(f'  {name:{width}}  {command.summary}'
                       for name, command in commands.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f'commands:\n{listed}\n\n`{prog} COMMAND --help` lists the '
        'options of a command.')
    parser.add_argument(
        'command',
        choices=tuple(commands),
        metavar='COMMAND',
        help='see below; its arguments follow')
    return parser


def _version() -> str:
    """Of the package whose scripts are run, in the tree or installed."""
    return runpy.run_path(str(_package() / 'version.py'))['__version__']


def _package() -> Path:
    """Folder of mmdet_clim, which is not imported: that takes seconds."""
    spec = find_spec('mmdet_clim')
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "No module named 'mmdet_clim'", name='mmdet_clim')
    return Path(spec.submodule_search_locations[0])


def script_of(command: Command) -> Path:
    """The file of a command.

    Args:
        command (Command): Out of :data:`COMMANDS`.
    """
    return (_package() / '.mim' / 'tools' / command.script).resolve()


def _commands_of_scripts() -> dict[str, str]:
    """Commands by the scripts below ``tools/`` that they run."""
    found = {}
    for name, command in COMMANDS.items():
        inner = dict([(name, command)]) if isinstance(command, Command) else {
            f'{name} {word}': one
            for word, one in command.commands.items()
        }
        found.update({
            one.script: f'clim {words}'
            for words, one in inner.items()
        })
    return found


def main(argv: list[str] | None = None) -> None:
    """Run the command that a command line names.

    Args:
        argv (list[str], optional): Without the program; those of the process
            if left out.

    Raises:
        SystemExit: With 2 after a wrong command line, 1 after a mistake, 130
            after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    prog = 'clim'
    commands: Mapping[str, Command | Group] = COMMANDS
    description = 'CLIM for any open-vocabulary detector of MMDetection.'
    while True:
        parser = _parser(prog, commands, description)
        if commands is COMMANDS:
            parser.add_argument(
                '--version', action='version', version=f'clim {_version()}')
        # The words behind the command are its own.
        end = next(
            (n for n, word in enumerate(words) if not word.startswith('-')),
            len(words))
        name = parser.parse_args(words[:end + 1]).command
        words = words[end + 1:]
        command = commands[name]
        prog = f'{prog} {name}'
        if isinstance(command, Command):
            break
        commands = command.commands
        description = f'{command.summary[:1].upper()}{command.summary[1:]}.'
    script = script_of(command)
    options.PROGRAM[:] = prog.split()
    options.COMMAND_OF.update(_commands_of_scripts())
    # As Python itself does for a script.
    sys.argv = [str(script), *words]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name='__main__')


if __name__ == '__main__':
    main()
