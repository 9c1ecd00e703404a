"""Inputs by their keys.

An input is the file that its key names, wherever that can be. The others are below ``.shepherd-keys``: the whole key is
percent-encoded and cut into names, of which the last begins with ``=`` and the others with ``+``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Optional
from urllib.parse import unquote_to_bytes

_ENCODED = ".shepherd-keys"


def files(inputs: Path) -> Dict[str, Path]:
    """The regular files below a directory of inputs, by their keys."""
    found: Dict[str, Path] = {}
    root = str(inputs)
    for directory, _, names in os.walk(root, onerror=_raise):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            relative = os.path.relpath(path, root)
            try:
                relative.encode()
            except UnicodeEncodeError:
                # No key is called so: it was not staged.
                continue
            found[_decoded(relative) or relative] = Path(path)
    return dict(sorted(found.items()))


def _decoded(path: str) -> Optional[str]:
    """The key whose encoded path this is."""
    area, *names = path.split("/")
    if area != _ENCODED or not names:
        return None
    if names[-1][:1] != "=" or any(name[:1] != "+" for name in names[:-1]):
        return None
    try:
        return unquote_to_bytes("".join(name[1:] for name in names)).decode()
    except UnicodeDecodeError:
        return None


def _raise(error: OSError) -> None:
    raise error
