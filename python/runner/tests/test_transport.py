"""The socket between two connections."""

import hmac
import json
import queue
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pynng
import pytest

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


TOKEN = "the launch's secret"


class Guarded:
    """A runner's socket that asks for proofs, with the thread that reads it and the one that greets."""

    def __init__(self, url):
        self.changed = threading.Event()
        self.heard = queue.Queue()
        self.socket = RunnerSocket(url, self.changed.set, TOKEN)
        for target in (self.greet, self.read):
            threading.Thread(target=target, daemon=True).start()

    def greet(self):
        while True:
            self.changed.wait()
            self.changed.clear()
            self.socket.greet()

    def read(self):
        while True:
            frame = self.socket.recv()
            if frame is not None:
                self.heard.put(frame)


def proof(side, runners, shepherds, token=TOKEN):
    return hmac.new(token.encode(), f"{side}\n{runners}\n{shepherds}".encode(), "sha256").hexdigest()


def asked(peer):
    message = json.loads(peer.recv())["message"]
    assert message.pop("message_type") == "ChallengeMessage"
    (challenge,) = message.values()
    return challenge


def prove(peer, challenge, token=TOKEN):
    message = {"challenge": "mine", "proof": proof("shepherd", challenge, "mine", token), "message_type": "ProofMessage"}
    peer.send(json.dumps({"message": message}).encode())


def dial(url):
    peer = pynng.Pair1(recv_timeout=10_000, reconnect_time_min=10, reconnect_time_max=20)
    peer.dial(url, block=False)
    return peer


def test_a_shepherd_that_knows_the_token_is_heard_and_answered():
    with TemporaryDirectory(prefix="runner-") as directory:
        url = f"ipc://{Path(directory)}/socket"
        guarded = Guarded(url)
        for number in range(3):
            peer = dial(url)
            challenge = asked(peer)
            assert guarded.socket.connection == NONE
            prove(peer, challenge)
            answer = {"proof": proof("runner", challenge, "mine"), "message_type": "ProofMessage"}
            assert json.loads(peer.recv()) == {"message": answer}
            peer.send(b"a job")
            frame = guarded.heard.get(timeout=10)
            assert frame.data == b"a job"
            assert guarded.socket.send(frame.connection, b"an answer")
            assert peer.recv() == b"an answer"
            peer.close()
            while guarded.socket.connection != NONE:
                time.sleep(0.001)


@pytest.mark.parametrize("wrong", ["a job", "another token", "an old proof", "nothing"])
def test_nobody_else_is_heard_and_all_make_room_for_the_shepherd(wrong):
    with TemporaryDirectory(prefix="runner-") as directory:
        url = f"ipc://{Path(directory)}/socket"
        guarded = Guarded(url)
        gone = threading.Event()
        stranger = pynng.Pair1(recv_timeout=10_000, reconnect_time_min=60_000)
        stranger.add_post_pipe_remove_cb(lambda _: gone.set())
        stranger.dial(url)
        challenge = asked(stranger)
        if wrong == "a job":
            stranger.send(b'{"message":{"message_type":"InputMessage"}}')
        elif wrong == "another token":
            prove(stranger, challenge, "a guess")
        elif wrong == "an old proof":
            prove(stranger, "0" * 32)
        assert gone.wait(10)
        assert guarded.socket.connection == NONE
        shepherd = dial(url)
        prove(shepherd, asked(shepherd))
        assert "proof" in json.loads(shepherd.recv())["message"]
        shepherd.send(b"the shepherd's")
        assert guarded.heard.get(timeout=10).data == b"the shepherd's"
        assert guarded.heard.empty()
        stranger.close()
        shepherd.close()
