"""The model of the README, as it is written there."""

import json
import os
import re
import sys
from pathlib import Path

from daemon import Daemon

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_model_of_the_readme(tmp_path):
    blocks = dict(re.findall(r"`models/(\S+)`:\n\n```\w+\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
    assert len(blocks) == 3
    models = tmp_path / "models"
    for name, text in blocks.items():
        path = models / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (models / "sentiment" / "1" / "weights.json").write_text('{"good": 1, "bad": -1}')
    runner = os.environ.get("SHEPHERD_RUNNER_BIN")
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    daemon = Daemon(tmp_path, models, runner_command=[runner] if runner else None, env={"PATH": path})
    daemon.submit("job", "sentiment", "a good day\na bad day\n")
    daemon.done("job")
    assert [result["positive"] for result in json.loads(daemon.result("job").body)] == [True, False]
    daemon.close()
