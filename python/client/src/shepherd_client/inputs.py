"""What a job is given, in whichever form the caller has it."""

import json
import os
from pathlib import Path
from typing import Any, BinaryIO, Iterable, Mapping, NamedTuple, Optional, Union

from shepherd_client.errors import Rejected, StorageRequired

Content = Union[bytes, str, "os.PathLike[str]", BinaryIO]
Files = Union[Mapping[str, Content], Iterable["os.PathLike[str]"]]

#: The one input that a job has when it has only one.
INPUT = "input"

#: What is longer than this goes to storage where there is one: a request is sent again as a whole.
_LARGE = 1024 * 1024


class Unset:
    """No JSON value, as opposed to null."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


class Inputs(NamedTuple):
    """Either travels with the request, or lies in storage first; neither: it is in storage already."""

    payload: Optional[str] = None
    files: Mapping[str, Content] = {}


def inputs(
    payload: Optional[Union[str, bytes]],
    value: Any,
    file: Union[str, "os.PathLike[str]", None],
    files: Optional[Files],
    storage: bool,
) -> Inputs:
    """Sorts out what a submit was given. Blocks where it reads a file."""
    given = [payload is not None, value is not UNSET, file is not None, files is not None]
    if sum(given) > 1:
        raise TypeError("only one of payload, json, file and files can be given")
    if payload is not None and not isinstance(payload, (str, bytes)):
        raise TypeError(f"payload must be str or bytes, not {_type(payload)}: json= takes any value that can be JSON")
    if file is not None and not isinstance(file, (str, os.PathLike)):
        raise TypeError(f"file must be a path, not {_type(file)}: files= also takes bytes and open files")
    if value is not UNSET:
        return _one(json.dumps(value, ensure_ascii=False), storage)
    if payload is not None:
        return _one(payload, storage)
    if file is not None:
        return _one(Path(file), storage)
    if files is None:
        return Inputs()
    named = dict(files) if isinstance(files, Mapping) else _by_name(files)
    for name, content in named.items():
        if not isinstance(name, str):
            raise TypeError(f"the names of files must be str, not {_type(name)}")
        if not isinstance(content, (str, bytes, os.PathLike)) and not hasattr(content, "read"):
            raise TypeError(f"file {name!r} must be str, bytes, a path or a binary file, not {_type(content)}")
        if any(segment in ("", ".", "..") for segment in name.split("/")):
            raise Rejected(f"{name!r} cannot be the name of an input")
    if not named:
        raise TypeError("files is empty: leave it out when the inputs are in storage already")
    if storage:
        return Inputs(files=named)
    if list(named) == [INPUT]:
        return _one(named[INPUT], storage)
    raise StorageRequired("several input files go by way of storage: make the client with storage=Storage(...)")


def _by_name(files: Iterable["os.PathLike[str]"]) -> Mapping[str, Content]:
    if isinstance(files, (str, bytes, os.PathLike)):
        raise TypeError(f"files must be a mapping or a list of paths, not {_type(files)}: file= takes one path")
    named = {}
    for file in files:
        if not isinstance(file, os.PathLike):
            raise TypeError(f"files must be a mapping from names, or pathlib paths, not {_type(file)}")
        name = Path(file).name
        if name in named:
            raise Rejected(f"two of the files are named {name!r}: give a mapping from names to files")
        named[name] = file
    return named


def _one(content: Content, storage: bool) -> Inputs:
    """One input, which may travel with the request when it is text."""
    if isinstance(content, os.PathLike):
        if storage:
            return Inputs(files={INPUT: content})
        content = Path(content).read_bytes()
    elif not isinstance(content, (str, bytes)):
        if storage:
            return Inputs(files={INPUT: content})
        content = content.read()
    if isinstance(content, str):
        text: Optional[str] = content
    else:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = None
    if text is not None and not (storage and len(content) > _LARGE):
        return Inputs(payload=text)
    if storage:
        return Inputs(files={INPUT: content})
    raise StorageRequired(
        "an input that is no UTF-8 text goes by way of storage: make the client with storage=Storage(...)"
    )


def _type(value: Any) -> str:
    return type(value).__name__
