"""``shepherd-runner-py``: serves a model with a class written in Python.

It takes the arguments of the first shepherd's runner.

Exit codes: 0 when it was told to end, 1 when it had to leave a job or its model cannot be loaded, 2 when its
arguments or ``runner.yaml`` are wrong.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from pathlib import Path
from typing import NoReturn, Optional, Sequence

from . import shutdown
from .config import Config
from .errors import SettingsError
from .options import DEFAULT_PORT, Options
from .output import OUTPUT
from .serve import serve
from .settings import DEFAULT_CLASS, class_beside, make_runner
from .transport import ListenError

_MISUSE = 2
_FAILURE = 1


def _arguments(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="shepherd-runner-py",
        description="Serves a model's jobs with a class written in Python.",
        epilog="Listens at the URL in SHEPHERD_LISTEN; without it on the given port, of 127.0.0.1 or of the address "
        "in SHEPHERD_LISTEN_HOST.",
    )
    parser.add_argument("-p", "--port", type=int, default=DEFAULT_PORT, help="the port to listen on (%(default)s)")
    parser.add_argument("-s", "--stream", default="predict", help="the stream of the model to run (%(default)s)")
    parser.add_argument(
        "-r",
        "--runner",
        metavar="CLASS",
        help=f"the class, module.Class, where no runner.yaml beside the configuration names one ({DEFAULT_CLASS})",
    )
    # From the program `shepherd-runner`, which has read the whole of runner.yaml: here it may be too much YAML.
    parser.add_argument("--class", dest="named", metavar="CLASS", help=argparse.SUPPRESS)
    parser.add_argument("config_path", type=Path, help="the model's configuration, or the directory that holds it")
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> NoReturn:
    """The program."""
    given = _arguments(arguments)
    # Before anybody takes hold of them.
    OUTPUT.install()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        path: Path = given.config_path
        if path.is_dir():
            path = path / "config.yaml"
        if not path.is_file():
            raise SettingsError(f"`{path}` is not a file")
        config = Config(path, given.stream)
        name = given.named or class_beside(config.path) or given.runner or DEFAULT_CLASS
        runner = make_runner(name, config, given.port)
        serve(runner, config, Options.from_env(given.port)._replace(name=f"{name} (Python)"))
        shutdown.linger()
    except SettingsError as error:
        _fail(str(error), _MISUSE)
    except ListenError as error:
        _fail(str(error), _FAILURE)
    except Exception:
        # The model's own: the end of what a runner prints is what its jobs' clients are told.
        traceback.print_exc()
        shutdown.linger()
        sys.exit(_FAILURE)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"shepherd-runner-py: {message}", file=sys.stderr)
    sys.exit(code)
