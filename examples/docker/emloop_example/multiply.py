"""A model of emloop that multiplies: its dataset yields what the job's payload holds."""

import json
import os

import emloop
import numpy
import ruamel.yaml

from shepherd_runner.legacy import BaseRunner


class PayloadDataset(emloop.AbstractDataset):
    """Makes batches of a payload such as ``{"key": [1, 2, 3]}``."""

    def __init__(self, config_str: str):
        super().__init__(config_str)
        config = ruamel.yaml.YAML(typ="safe").load(config_str) or {}
        #: How many values a batch holds; by default all of them.
        self._batch_size = config.get("batch_size")

    def predict_stream(self, payload):
        """The stream that ``-s predict`` asks for."""
        values = payload["key"]
        size = self._batch_size or max(1, len(values))
        for first in range(0, len(values), size):
            yield {"key": values[first : first + size]}


class SumDataset(PayloadDataset):
    """Adds up what the model makes of each batch."""

    def postprocess_batch(self, input_batch, output_batch):
        """What becomes of a batch's output."""
        return {**output_batch, "sum": [numpy.sum(output_batch["output"])]}


class MultiplyModel(emloop.AbstractModel):
    """Multiplies by a factor."""

    def __init__(self, dataset, log_dir, restore_from=None, factor: int = 2, n_gpus: int = 0, **kwargs):
        super().__init__(dataset=dataset, log_dir=log_dir, restore_from=restore_from, **kwargs)
        self._factor = factor

    @property
    def input_names(self):
        return ["key"]

    @property
    def output_names(self):
        return ["output"]

    @property
    def restore_fallback(self):
        return None

    def run(self, batch, train: bool = False, stream=None):
        return {"key": batch["key"], "output": numpy.asarray(batch["key"]) * self._factor}

    def save(self, name_suffix: str) -> str:
        raise NotImplementedError("there is nothing to save")


class LinesRunner(BaseRunner):
    """Reads and writes a number on each line, in place of JSON."""

    def _process_job(self, input_path: str, output_path: str) -> None:
        self._load_dataset()
        self._load_model()
        with open(os.path.join(input_path, "input"), encoding="utf-8") as file:
            payload = {"key": [json.loads(line) for line in file]}
        with open(os.path.join(output_path, "output"), "w", encoding="utf-8") as file:
            for batch in self._dataset.predict_stream(payload):
                for value in self._model.run(batch)["output"]:
                    file.write(f"{value}\n")
