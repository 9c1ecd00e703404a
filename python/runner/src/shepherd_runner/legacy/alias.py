"""``shepherd``, the name by which models of the first shepherd know its runners, messages and constants.

Nothing is installed under that name: the first shepherd's own package (``cxflow-shepherd``) has it, and two packages
must not own one file. A finder at the end of the import system's list answers for it where nobody else does. So it
is there once :mod:`shepherd_runner.legacy` was imported, as in every ``shepherd-runner-py``, and an installed
``shepherd`` is never shadowed.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Dict, Tuple

_RUNNER = ("BaseRunner", "JSONRunner", "n_available_gpus", "run", "to_json_serializable")
_MESSAGES = ("Message", "InputMessage", "DoneMessage", "ErrorMessage", "encode_message", "decode_message")

#: The modules, and which names they hold of which module of this package.
_MODULES: Dict[str, Tuple[str, Tuple[str, ...]]] = {
    "shepherd": ("shepherd_runner", ()),
    "shepherd.comm": ("shepherd_runner.legacy.comm", (*_MESSAGES, "Messenger")),
    "shepherd.comm.messages": ("shepherd_runner.legacy.comm", _MESSAGES),
    "shepherd.comm.messenger": ("shepherd_runner.legacy.comm", ("Messenger",)),
    "shepherd.constants": (
        "shepherd_runner.legacy.constants",
        (
            "JOB_STATUS_FILE",
            "DEFAULT_PAYLOAD_FILE",
            "DEFAULT_OUTPUT_FILE",
            "INPUT_DIR",
            "OUTPUT_DIR",
            "DEFAULT_PAYLOAD_PATH",
            "DEFAULT_OUTPUT_PATH",
        ),
    ),
    "shepherd.errors": ("shepherd_runner", ()),
    "shepherd.errors.comm": ("shepherd_runner.legacy.comm", ("MessageError", "UnexpectedMessageTypeError")),
    "shepherd.runner": ("shepherd_runner.legacy", _RUNNER),
    "shepherd.runner.base_runner": ("shepherd_runner.legacy.base_runner", ("BaseRunner", "n_available_gpus")),
    "shepherd.runner.json_runner": (
        "shepherd_runner.legacy.json_runner",
        ("BaseRunner", "JSONRunner", "run", "to_json_serializable"),
    ),
    "shepherd.runner.runner_entry_point": ("shepherd_runner.cli", ("main",)),
}
#: Those that have modules below them.
_PACKAGES = {name.rpartition(".")[0] for name in _MODULES}


class _Alias(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname not in _MODULES:
            return None
        parent = sys.modules.get(fullname.rpartition(".")[0])
        # A directory of that name without a package in it has no file.
        if parent is not None and getattr(parent, "__file__", None) is not None:
            return None
        return ModuleSpec(fullname, self, is_package=fullname in _PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        source, names = _MODULES[module.__name__]
        found = importlib.import_module(source)
        for name in names:
            setattr(module, name, getattr(found, name))
        # For `import *`.
        setattr(module, "__all__", list(names))


def install() -> None:
    """Answers for the name from now on."""
    if not any(isinstance(finder, _Alias) for finder in sys.meta_path):
        sys.meta_path.append(_Alias())
