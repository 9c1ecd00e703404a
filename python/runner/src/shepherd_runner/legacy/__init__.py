"""Runners of the first shepherd: the same classes, with the same methods to override, on this SDK.

``from shepherd.runner import BaseRunner`` means these, where the first shepherd itself is not installed
(:mod:`.alias`).
"""

from . import alias
from .base_runner import BaseRunner, n_available_gpus
from .json_runner import JSONRunner, run, to_json_serializable

__all__ = ["BaseRunner", "JSONRunner", "n_available_gpus", "run", "to_json_serializable"]

alias.install()
