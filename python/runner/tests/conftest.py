import sys
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from shepherd import Shepherd  # noqa: E402


@pytest.fixture
def shepherd() -> Iterator[Shepherd]:
    # Not pytest's own directory: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="runner-") as directory:
        shepherd = Shepherd(Path(directory))
        yield shepherd
        shepherd.close()
