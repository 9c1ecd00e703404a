"""The socket between two connections."""

import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pynng

from shepherd_runner.transport import NONE, RunnerSocket


def test_what_waits_when_a_connection_ends_does_not_reach_the_next():
    with TemporaryDirectory(prefix="runner-") as directory:
        url = f"ipc://{Path(directory)}/socket"
        socket = RunnerSocket(url, lambda: None)
        for _ in range(5):
            first = pynng.Pair1()
            first.dial(url)
            while socket.connection == NONE:
                time.sleep(0.001)
            connection = socket.connection

            def send(connection=connection):
                while socket.send(connection, b"x" * 200_000):
                    pass

            sender = threading.Thread(target=send)
            sender.start()
            # However long it takes to fill what lies between: then the sender waits, because nobody reads.
            time.sleep(0.2)
            first.close()
            second = pynng.Pair1(recv_timeout=10_000)
            second.dial(url)
            sender.join()
            # The second dials again where it came before the end of the first was known.
            while socket.connection in (NONE, connection):
                time.sleep(0.001)
            assert socket.send(socket.connection, b"to the second")
            assert second.recv() == b"to the second"
            second.close()
            while socket.connection != NONE:
                time.sleep(0.001)
