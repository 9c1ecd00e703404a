"""The model's configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Union

from .errors import SettingsError


class Config(Mapping[str, Any]):
    """The model's ``config.yaml``, as a mapping that is read when it is first looked into.

    JSON, which is YAML too, needs nothing; other YAML needs PyYAML or ruamel.yaml.
    """

    def __init__(self, path: Optional[Union[str, Path]] = None, stream: str = "predict") -> None:
        self._path = None if path is None else Path(path).resolve()
        self._stream = stream
        self._values: Optional[Dict[str, Any]] = None

    @property
    def path(self) -> Path:
        """Where the configuration lies; its directory is that of the model."""
        if self._path is None:
            raise SettingsError("the runner was started without a configuration")
        return self._path

    @property
    def stream(self) -> str:
        """The stream of the model that is asked for."""
        return self._stream

    def _load(self) -> Dict[str, Any]:
        if self._values is None:
            self._values = {} if self._path is None else load(self._path)
        return self._values

    def __getitem__(self, key: str) -> Any:
        return self._load()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())

    def __repr__(self) -> str:
        return f"Config({str(self._path)!r}, stream={self._stream!r})"


def load(path: Path) -> Dict[str, Any]:
    """Reads a file with a mapping in JSON or YAML. An empty one is an empty mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read `{path}`: {error}") from error
    try:
        values = json.loads(text)
    except ValueError:
        values = _load_yaml(text, path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"`{path}` is not a mapping")
    return values


def _load_yaml(text: str, path: Path) -> Any:
    lines = (line.strip() for line in text.splitlines())
    if all(not line or line.startswith("#") for line in lines):
        return None
    try:
        import yaml
    except ImportError:
        return _load_with_ruamel(text, path)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"`{path}` is no YAML: {error}") from error


def _load_with_ruamel(text: str, path: Path) -> Any:
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError:
        raise SettingsError(
            f"`{path}` is YAML, and there is nothing here to read it with: install PyYAML "
            "(`pip install shepherd-runner[yaml]`), or write it as JSON"
        ) from None
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise SettingsError(f"`{path}` is no YAML: {error}") from error
