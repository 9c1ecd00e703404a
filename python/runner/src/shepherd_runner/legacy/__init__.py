"""Runners of the first shepherd: the same classes, with the same methods to override, on this SDK.

``from shepherd.runner import BaseRunner`` becomes ``from shepherd_runner.legacy import BaseRunner``.
"""

from .base_runner import BaseRunner, n_available_gpus
from .json_runner import JSONRunner, run, to_json_serializable

__all__ = ["BaseRunner", "JSONRunner", "n_available_gpus", "run", "to_json_serializable"]
