"""``shepherd.runner``, the name by which models of the first shepherd know its runners.

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
from typing import Any, Dict

#: What the modules hold: the names of which module of this package.
_MODULES: Dict[str, str] = {
    "shepherd": "",
    "shepherd.runner": "",
    "shepherd.runner.base_runner": ".base_runner",
    "shepherd.runner.json_runner": ".json_runner",
}


class _Alias(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname not in _MODULES:
            return None
        parent = sys.modules.get(fullname.rpartition(".")[0])
        # A directory of that name without a package in it has no file.
        if parent is not None and getattr(parent, "__file__", None) is not None:
            return None
        return ModuleSpec(fullname, self, is_package=fullname in ("shepherd", "shepherd.runner"))

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "shepherd":
            return
        source = importlib.import_module(__package__ + _MODULES[module.__name__])
        for name in ("BaseRunner", "JSONRunner", "n_available_gpus", "run", "to_json_serializable"):
            if hasattr(source, name):
                setattr(module, name, getattr(source, name))


def install() -> None:
    """Answers for the name from now on."""
    if not any(isinstance(finder, _Alias) for finder in sys.meta_path):
        sys.meta_path.append(_Alias())
