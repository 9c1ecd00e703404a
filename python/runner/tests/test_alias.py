"""Models that know the runners by the first shepherd's name."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from shepherd import done, shutdown

from shepherd_runner.legacy import comm

BOTH = "import shepherd_runner.legacy as legacy\n"


def python(directory: Path, source: str) -> str:
    return subprocess.check_output([sys.executable, "-c", source], cwd=str(directory), universal_newlines=True)


@pytest.mark.parametrize("module", ["shepherd.runner", "shepherd.runner.base_runner"])
def test_an_unmodified_model_is_served(shepherd, module):
    shepherd.start(
        f"""
        from shepherd.constants import DEFAULT_PAYLOAD_FILE, DEFAULT_OUTPUT_FILE
        from {module} import BaseRunner
        class R(BaseRunner):
            def _process_job(self, input_path, output_path):
                with open(os.path.join(output_path, DEFAULT_OUTPUT_FILE), "w") as file:
                    file.write(open(os.path.join(input_path, DEFAULT_PAYLOAD_FILE)).read())
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
    everything = BOTH + (
        "from shepherd.constants import *\nfrom shepherd.comm import *\n"
        "from shepherd.errors.comm import MessageError\nfrom shepherd.runner.runner_entry_point import main\n"
        "import shepherd.comm.messages, shepherd.comm.messenger, shepherd_runner.cli\n"
        "assert main is shepherd_runner.cli.main and issubclass(MessageError, ValueError)\n"
        "print(DEFAULT_PAYLOAD_PATH, DEFAULT_OUTPUT_PATH, JOB_STATUS_FILE, DoneMessage({'job_id': 'a'}).job_id)\n"
    )
    assert python(tmp_path, everything) == "inputs/input outputs/output job_status.json a\n"
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


class Socket:
    """As much of a ROUTER socket as the messenger uses: what is sent comes back."""

    type = 6

    def __init__(self):
        self.frames = []

    async def send_multipart(self, frames):
        self.frames = frames

    async def recv_multipart(self, flags):
        assert flags == 0
        if len(self.frames) < 2:
            raise OSError("nothing came")
        return self.frames


def test_messages_are_those_of_the_first_shepherds_wire():
    given = comm.InputMessage({"job_id": "one", "io_data_root": "/data"})
    given.identity = b"peer"
    assert json.loads(comm.encode_message(given)) == {
        "message": {"identity": "", "job_id": "one", "io_data_root": "/data", "message_type": "InputMessage"}
    }
    socket = Socket()
    error = comm.ErrorMessage({"job_id": "one", "message": "ValueError: boom", "exception_type": "ValueError"})
    asyncio.run(comm.Messenger.send(socket, error, given))
    assert socket.frames[0] == b"peer"
    received = asyncio.run(comm.Messenger.recv(socket, [comm.ErrorMessage]))
    assert (received.identity, received.message, received.exception_traceback) == (b"peer", "ValueError: boom", None)
    with pytest.raises(comm.UnexpectedMessageTypeError, match="ErrorMessage.*DoneMessage"):
        asyncio.run(comm.Messenger.recv(socket, [comm.DoneMessage]))
    with pytest.raises(comm.MessageError, match="receive"):
        asyncio.run(comm.Messenger.recv(Socket()))
    with pytest.raises(TypeError):
        asyncio.run(comm.Messenger.send(socket, "no message"))
    with pytest.raises(ValueError, match="no field `inputs`"):
        comm.DoneMessage({"inputs": 1})
    for frame in (b"[]", b'{"message": {}}', b'{"message": {"message_type": "Message"}}'):
        with pytest.raises(ValueError):
            comm.decode_message(frame)
