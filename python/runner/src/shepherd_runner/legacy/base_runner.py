"""The first shepherd's runner to inherit from."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Optional

from ..config import Config
from ..errors import ErrorTexts, describe
from ..job import Job
from ..runner import Runner
from .framework import Framework


def n_available_gpus() -> int:
    """How many NVIDIA GPUs this process may use: those that ``CUDA_VISIBLE_DEVICES`` (bare sheep) or else
    ``NVIDIA_VISIBLE_DEVICES`` (docker sheep) names, or else all in ``/dev``.
    """
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        devices = os.environ.get(name)
        if devices is None or (name.startswith("NVIDIA") and devices.strip() == "all"):
            continue
        count = 0
        for device in devices.split(","):
            if device.strip() in ("", "none", "void") or device.strip().startswith("-"):
                # What follows a number that is none is not seen either.
                break
            count += 1
        return count
    try:
        return sum(re.fullmatch(r"nvidia[0-9]+", entry) is not None for entry in os.listdir("/dev"))
    except OSError:
        return 0


class BaseRunner(Runner):
    """Loads a dataset and a model of cxflow or emloop once, when they are first asked for.

    Subclasses give :meth:`_process_job`, and may override the methods that load.
    """

    #: ``"cxflow"`` or ``"emloop"``; by default whichever is installed.
    framework: Optional[str] = None

    def __init__(self, config_path: str, port: int, stream_name: str) -> None:
        self._config_path = config_path
        self._port = port
        self._stream_name = stream_name
        self._framework: Optional[Framework] = None
        self._config: Any = None
        self._dataset: Any = None
        self._model: Any = None

    def _get_framework(self) -> Framework:
        if self._framework is None:
            self._framework = Framework.find(self.framework)
        return self._framework

    def _load_config(self) -> None:
        """Makes ``_config``, unless it is there."""
        if self._config is None:
            config: Dict[str, Any] = self._get_framework().load_config(
                self._config_path, self._stream_name, n_available_gpus()
            )
            self._config = config

    def _load_dataset(self) -> None:
        """Makes ``_dataset``, unless it is there."""
        if self._dataset is None:
            self._load_config()
            self._dataset = self._get_framework().create_dataset(self._config)

    def _load_model(self) -> None:
        """Makes ``_model``, unless it is there."""
        if self._model is None:
            self._load_config()
            directory = self._config_path
            if not os.path.isdir(directory):
                directory = os.path.dirname(directory)
            self._model = self._get_framework().create_model(self._config, self._dataset, directory)

    def _process_job(self, input_path: str, output_path: str) -> None:
        """Works on a job whose inputs are in the directory ``input_path`` and whose outputs belong into
        ``output_path``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `_process_job`")

    def setup(self, config: Config) -> None:
        """Loads nothing: not every runner has a dataset or a model."""

    def process(self, job: Job) -> None:
        """Has :meth:`_process_job` do it."""
        self._process_job(str(job.inputs), str(job.outputs))

    def _describe(self, error: BaseException) -> ErrorTexts:
        """As the first shepherd: the message begins with the exception's name, and its clients may look for it."""
        texts = describe(error)
        # An exception without a text is described by its type alone.
        text = "" if texts.message == texts.exception_type else texts.message
        return texts._replace(message=f"{type(error).__name__}: {text}")
