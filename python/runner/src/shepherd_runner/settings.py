"""Which class serves a model, and how it is found.

``runner.yaml`` beside the configuration may name the class: ``runner: {class: package.Class}``. So that this one file
needs no YAML library, a small part of YAML is read here: two levels of ``key: value`` lines, or ``{key: value}``.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Dict, Optional

from .config import Config, load
from .errors import SettingsError
from .legacy.base_runner import BaseRunner
from .runner import Runner

#: What serves a model that says nothing about it, as it always did.
DEFAULT_CLASS = "shepherd_runner.legacy.JSONRunner"

#: Names of the first shepherd's classes, and what stands in for them.
_LEGACY = {
    f"{package}{name}": f"shepherd_runner.legacy.{name}"
    for package in ("", "shepherd.runner.", "cxworker.runner.")
    for name in ("JSONRunner", "BaseRunner")
}


def class_beside(config: Path) -> Optional[str]:
    """The class that ``runner.yaml`` in the directory of ``config`` names, if there is one.

    Raises :class:`SettingsError` when it is there and cannot be used.
    """
    path = config.parent / "runner.yaml"
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read `{path}`: {error}") from error
    section = _read_simple(text)
    if section is None:
        values = load(path).get("runner")
        if not isinstance(values, dict):
            raise SettingsError(f"`{path}` has no section `runner`")
        section = {str(key): str(value) for key, value in values.items()}
    if "command" in section:
        raise SettingsError(f"`{path}` names a command, which the program `shepherd-runner` runs, and no class")
    return section.get("class")


_KEY = r"""(?P<{0}>[A-Za-z_]+)\s*:"""
_VALUE = r"""(?P<value>[A-Za-z0-9_.]+|"[A-Za-z0-9_.]+"|'[A-Za-z0-9_.]+')"""
_COMMENT = r"""(?:\s+\#.*)?"""
_FLOW = re.compile(rf"runner\s*:\s*\{{\s*{_KEY.format('key')}\s+{_VALUE}\s*,?\s*\}}{_COMMENT}\s*")
_LINE = re.compile(rf"\s+{_KEY.format('key')}\s+{_VALUE}{_COMMENT}\s*")
_HEAD = re.compile(rf"runner\s*:{_COMMENT}\s*")


def _read_simple(text: str) -> Optional[Dict[str, str]]:
    """The section ``runner``, when the file is so simple that there is no doubt what it means."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) == 1:
        match = _FLOW.fullmatch(lines[0])
        return None if match is None else {match["key"]: match["value"].strip("'\"")}
    if not lines or _HEAD.fullmatch(lines[0]) is None:
        return None
    section: Dict[str, str] = {}
    for line in lines[1:]:
        match = _LINE.fullmatch(line)
        if match is None or match["key"] in section:
            return None
        section[match["key"]] = match["value"].strip("'\"")
    return section


def make_runner(name: str, config: Config, port: int) -> Runner:
    """Imports a class, from the working directory, beside the configuration or wherever else Python looks, and
    makes the runner.

    Raises :class:`SettingsError` when there is no such class; what its module raises comes through.
    """
    name = _LEGACY.get(name, name)
    module_name, _, class_name = name.rpartition(".")
    if not module_name or not class_name.isidentifier():
        raise SettingsError(f"`{name}` is no class: it must be written `module.Class`")
    for directory in (str(config.path.parent), ""):
        if directory not in sys.path:
            sys.path.insert(0, directory)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise SettingsError(
                f"cannot find the module `{module_name}`; it is looked for in the working directory, beside the "
                "configuration, and where Python finds what is installed"
            ) from error
        raise
    found = getattr(module, class_name, None)
    if not isinstance(found, type) or not issubclass(found, Runner):
        raise SettingsError(f"`{name}` is no subclass of `shepherd_runner.Runner`")
    if issubclass(found, BaseRunner):
        return found(str(config.path), port, config.stream)
    return found()
