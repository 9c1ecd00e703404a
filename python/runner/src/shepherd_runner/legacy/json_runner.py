"""JSON in, JSON out, through a dataset's stream and a model."""

from __future__ import annotations

import json
import os
import traceback
from collections import defaultdict
from typing import Any, DefaultDict, List, Mapping

from ..config import Config
from ..errors import SettingsError
from .base_runner import BaseRunner


def to_json_serializable(data: Any) -> Any:
    """The same data with lists for arrays and plain numbers for scalars of numpy."""
    if isinstance(data, Mapping):
        return {_key(key): to_json_serializable(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [to_json_serializable(value) for value in data]
    if data is None or isinstance(data, (str, bool, int, float)) and type(data).__module__ == "builtins":
        return data
    if type(data).__module__.split(".")[0] == "numpy" and hasattr(data, "tolist"):
        # Of an array of objects, these are any objects.
        return to_json_serializable(data.tolist())
    if isinstance(data, (str, int, float)):
        return data
    raise ValueError(f"this has no form in JSON: {type(data).__name__} {data!r:.100}")


def _key(key: Any) -> Any:
    return key.item() if type(key).__module__ == "numpy" and hasattr(key, "item") else key


def run(model: Any, dataset: Any, stream_name: str, payload: Any) -> Mapping[str, List[Any]]:
    """Runs the model on each batch of the dataset's ``STREAM_stream(payload)``, has the dataset's
    ``postprocess_batch`` work on what comes out, where there is one, and joins the batches.
    """
    stream = getattr(dataset, f"{stream_name}_stream", None)
    if stream is None:
        raise AttributeError(f"the dataset {type(dataset).__name__} has no method `{stream_name}_stream`")
    postprocess = getattr(dataset, "postprocess_batch", None)
    result: DefaultDict[str, List[Any]] = defaultdict(list)
    for input_batch in stream(payload):
        batch = model.run(input_batch, train=False, stream=None)
        if postprocess is not None:
            batch = postprocess(input_batch=input_batch, output_batch=batch)
        for source, values in batch.items():
            result[source].extend(values)
    return result


class JSONRunner(BaseRunner):
    """Reads ``inputs/input``, runs the model on the stream that the dataset makes of it, and writes
    ``outputs/output``.
    """

    def setup(self, config: Config) -> None:
        """Loads dataset and model, so that the first job does not wait for them longer than the runner's start.

        What they raise is the error of each job, which tries again, as with the first shepherd: its client is told
        what is wrong with the model, and not only that there is no runner.
        """
        try:
            self._load()
        except SettingsError:
            raise
        except Exception:
            traceback.print_exc()

    def _load(self) -> None:
        self._load_dataset()
        self._load_model()

    def _process_job(self, input_path: str, output_path: str) -> None:
        self._load()
        with open(os.path.join(input_path, "input"), encoding="utf-8") as file:
            payload = json.load(file)
        result = run(self._model, self._dataset, self._stream_name, payload)
        text = json.dumps(to_json_serializable(result))
        with open(os.path.join(output_path, "output"), "w", encoding="utf-8") as file:
            file.write(text)
