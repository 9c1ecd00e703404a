"""The two frameworks that the first shepherd's models were made with, as one thing.

emloop is cxflow's later name; of what a runner needs, only modules differ.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Dict, Optional

from ..errors import SettingsError

_COMMON = {"emloop": "emloop.api", "cxflow": "cxflow.cli.common"}


class _Yaml:
    """Stands in for PyYAML where it is called without a loader. The text is what a framework itself has dumped."""

    @staticmethod
    def load(text: str) -> Any:
        """The values of a YAML document."""
        return importlib.import_module("ruamel.yaml").YAML(typ="safe", pure=True).load(text)


class Framework:
    """Loads configurations, datasets and models of one framework."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "cxflow":
            # It gives PyYAML the dumpers of ruamel.yaml, which have not fitted since PyYAML 5.1; the functions of
            # the same names in ruamel.yaml take them.
            yaml: Any = importlib.import_module("cxflow.utils.yaml")
            yaml.yaml = importlib.import_module("ruamel.yaml")
            # Its `BaseDataset` reads the section `dataset` by `yaml.load(text)`, for which PyYAML 6 needs a loader.
            importlib.import_module("cxflow.datasets.base_dataset").yaml = _Yaml  # type: ignore[attr-defined]
        common = importlib.import_module(_COMMON[name])
        util = importlib.import_module(f"{name}.cli.util")
        config = importlib.import_module(f"{name}.utils.config")
        self._create_dataset = common.create_dataset
        self._create_model = common.create_model
        self._find_config = util.find_config
        self._validate_config = util.validate_config
        self._load_config = config.load_config

    @classmethod
    def find(cls, name: Optional[str]) -> "Framework":
        """The framework of this name; without one, that which is installed."""
        for candidate in [name] if name else list(_COMMON):
            if importlib.util.find_spec(candidate) is not None:
                return cls(candidate)
        raise SettingsError(
            f"{name or 'neither emloop nor cxflow'} is {'not ' if name else ''}installed: "
            "`pip install shepherd-runner[emloop]` or `[cxflow]`"
        )

    def load_config(self, path: str, stream: str, n_gpus: int) -> Dict[str, Any]:
        """The configuration as it is for a stream: its section in `eval` updates the others."""
        config: Dict[str, Any] = self._load_config(config_file=self._find_config(path))
        update = (config.get("eval") or {}).get(stream)
        if update is not None:
            for section in ("dataset", "model", "main_loop"):
                if section in update:
                    config.setdefault(section, {}).update(update[section])
            config["hooks"] = update.get("hooks", [])
        self._validate_config(config)
        config["model"]["n_gpus"] = n_gpus
        return config

    def create_dataset(self, config: Dict[str, Any]) -> Any:
        """The dataset."""
        return self._create_dataset(config, None)

    def create_model(self, config: Dict[str, Any], dataset: Any, restore_from: str) -> Any:
        """The model, restored from a directory."""
        return self._create_model(config, None, dataset, restore_from)
