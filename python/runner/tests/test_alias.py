"""Models that know the runners by the first shepherd's name."""

import subprocess
import sys
from pathlib import Path

import pytest
from shepherd import done, shutdown

BOTH = "import shepherd_runner.legacy as legacy\n"


def python(directory: Path, source: str) -> str:
    return subprocess.check_output([sys.executable, "-c", source], cwd=str(directory), universal_newlines=True)


@pytest.mark.parametrize("module", ["shepherd.runner", "shepherd.runner.base_runner"])
def test_an_unmodified_model_is_served(shepherd, module):
    shepherd.start(
        f"""
        from {module} import BaseRunner
        class R(BaseRunner):
            def _process_job(self, input_path, output_path):
                with open(os.path.join(output_path, "output"), "w") as file:
                    file.write(open(os.path.join(input_path, "input")).read())
        """
    )
    shepherd.send(shepherd.input("one"))
    assert shepherd.message() == done("one")
    assert shepherd.output("one") == "payload"
    shepherd.send(shutdown())
    assert shepherd.exit() == 0


def test_the_names_are_those_of_this_package(tmp_path):
    source = BOTH + (
        "import shepherd.runner, shepherd.runner.json_runner as j\n"
        "from shepherd.runner import BaseRunner, JSONRunner\n"
        "assert BaseRunner is legacy.BaseRunner and JSONRunner is legacy.JSONRunner is j.JSONRunner\n"
        "try:\n    import shepherd.sheep\nexcept ImportError:\n    print('no more')\n"
    )
    assert python(tmp_path, source) == "no more\n"
    # Nor does a mere directory of that name stand in the way.
    (tmp_path / "shepherd").mkdir()
    assert python(tmp_path, source) == "no more\n"


def test_an_installed_shepherd_is_not_shadowed(tmp_path):
    package = tmp_path / "shepherd" / "runner"
    package.mkdir(parents=True)
    (tmp_path / "shepherd" / "__init__.py").touch()
    (package / "__init__.py").write_text("BaseRunner = 'theirs'\n")
    source = BOTH + (
        "from shepherd.runner import BaseRunner\n"
        "try:\n    import shepherd.runner.json_runner\nexcept ImportError:\n    print(BaseRunner)\n"
    )
    assert python(tmp_path, source) == "theirs\n"
