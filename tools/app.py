# Licensed under the Apache License, Version 2.0.
r"""Serve a local web page: boxes and maps for your own words in an image.

Without CONFIG and CHECKPOINT, it uses the detector that `make demo` trained.

    python tools/app.py --checkpoint iter_600.pth
"""
import argparse
import ipaddress
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

# What takes seconds to import waits until the command line is read.
from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, device_name

ROOT = Path(__file__).resolve().parents[1]
DEMO = 'demo_clim_best_softmax_2x2_compete_more-whole'
DEMO_CONFIG = ROOT / 'configs' / 'openmoji' / f'{DEMO}.py'
DEMO_RUN = Path('work_dirs/demo/seed0', DEMO)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--config',
        help='config of the detector (default: the one in CHECKPOINT)')
    parser.add_argument(
        '--checkpoint',
        help='file, folder of `clim share`, or hf://USER/NAME, which is '
        f"downloaded (default: the demo's, in {DEMO_RUN})")
    parser.add_argument(
        '--before',
        metavar='CHECKPOINT',
        help='an earlier checkpoint of the detector, whose boxes and maps are '
        'shown beside the current ones')
    parser.add_argument(
        '--before-config',
        metavar='CONFIG',
        help='config of --before (default: --config, or the one in the '
        'checkpoint)')
    parser.add_argument(
        '--score-thr',
        type=float,
        help='initial position of the score slider, for all words (default: '
        'the thresholds in thresholds.json beside CHECKPOINT, written by '
        '`finetune`; 0.3 for other words)')
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; one that is reachable from the network, '
        'such as 0.0.0.0, requires --password-file (%(default)s)')
    parser.add_argument(
        '--allowed-host',
        nargs='+',
        default=[],
        metavar='NAME',
        help='further host names of this machine; requests for others are '
        'refused')
    parser.add_argument(
        '--password-file',
        type=Path,
        help='file whose first line is the password of the page; any user '
        'name is accepted')
    parser.add_argument(
        '--port',
        type=int,
        default=7860,
        help='port to listen on (%(default)s)')
    parser.add_argument(
        '--device',
        type=device_name,
        help='such as cuda:0 or cpu (default: an accelerator if there is one)')
    args = parser.parse_args(argv)
    if args.score_thr is not None and not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr: expected 0 to 1, got {args.score_thr}')
    if not 0 < args.port < 2**16:
        parser.error(f'--port: expected 1 to 65535, got {args.port}')
    args.password = None
    if args.password_file is not None:
        if not args.password_file.is_file():
            parser.error(f'--password-file: {args.password_file} does not '
                         'exist')
        try:
            lines = args.password_file.read_text('utf-8').splitlines()
        except (OSError, ValueError) as error:
            parser.error(f'--password-file: {args.password_file} cannot be '
                         f'read ({error})')
        args.password = lines[0].strip() if lines else ''
        if not args.password:
            parser.error(f'--password-file: {args.password_file} has no '
                         'password in its first line')
    elif not _is_loopback(args.host):
        parser.error(f'--host {args.host}: others in the network could use '
                     'the page; give --password-file')
    if args.checkpoint is None and args.config is not None:
        parser.error(f'--config {args.config}: give its --checkpoint too')
    if args.checkpoint is None:
        args.config, args.checkpoint = str(DEMO_CONFIG), _demo_checkpoint()
        if args.checkpoint is None:
            parser.error(f'--checkpoint: expected one, as there is none in '
                         f'{DEMO_RUN}; `make demo` trains it')
    if args.before_config is not None and args.before is None:
        parser.error('--before-config: requires --before')
    for name in ('checkpoint', 'before'):
        file = vars(args)[name]
        if not (file is None or file.startswith('hf://')
                or Path(file).exists()):
            parser.error(f'--{name}: {file} does not exist')
    return args


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def _names_of(host: str) -> list[str]:
    """What browsers may call this machine."""
    names = {'localhost', '127.0.0.1', '::1', '[::1]', host}
    if not _is_loopback(host):
        names.update((socket.gethostname(), socket.getfqdn()))
    return sorted(names)


def _demo_checkpoint() -> str | None:
    """The last checkpoint of the demo, if it was run here."""
    if not DEMO_RUN.is_dir():
        return None
    from mmengine.runner import find_latest_checkpoint
    found = find_latest_checkpoint(str(DEMO_RUN))
    # Of this name in the folder, wherever that was when it was written.
    return str(DEMO_RUN / Path(found).name) if found else None


def main(argv: list[str] | None = None) -> None:
    """Serve the page."""
    args = parse_args(argv)
    # What stops a service must not leave the uploads behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix='mmdet_clim_app_') as folder:
        # gradio reads these when it is imported.
        os.environ['GRADIO_TEMP_DIR'] = folder
        os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
        from mmdet_clim.apis import WordFinder
        from mmdet_clim.apis.page import build_page, serve
        from mmdet_clim.apis.sharing import load_detector

        def finder(config: str | None, checkpoint: str) -> WordFinder:
            return WordFinder(
                load_detector(
                    config,
                    checkpoint,
                    thresholds=args.score_thr,
                    device=args.device,
                    show_progress=False))

        find = finder(args.config, args.checkpoint)
        before, model = None, args.checkpoint
        if args.before is not None:
            before = finder(args.before_config or args.config, args.before)
            model += f', before: {args.before}'
        serve(
            build_page(find, model, before), args.host, args.port,
            [*_names_of(args.host), *args.allowed_host], args.password)


if __name__ == '__main__':
    run_command(main)
