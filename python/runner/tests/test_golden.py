"""The wire's golden frames, which the shepherd's own codec is tested with too: what is in them is said there."""

import json
from pathlib import Path

import pytest

from shepherd_runner import wire
from shepherd_runner.errors import ErrorTexts
from shepherd_runner.handshake import Challenge

PATH = Path(__file__).resolve().parents[3] / "crates" / "shepherd-protocol" / "tests" / "golden.json"
HANDSHAKE = json.loads(PATH.with_name("handshake.json").read_text(encoding="utf-8"))
GOLDEN = json.loads(PATH.read_text(encoding="utf-8"))


def names(to):
    chosen = [golden for golden in GOLDEN if to(golden)]
    assert chosen
    return [pytest.param(golden, id=golden["name"]) for golden in chosen]


def read(told):
    kind = told["type"]
    if kind == "input":
        return wire.Input(told["job"], told["attempt"], told["io_data_root"], told.get("deadline"))
    if kind == "cancel":
        return wire.Cancel(told["job"], told["attempt"])
    if kind == "shutdown":
        return wire.Shutdown(told["grace"])
    assert kind == "ping"
    return wire.Ping(told["nonce"])


def write(told):
    kind = told["type"]
    if kind == "ready":
        return wire.ready(*(told[key] for key in ("name", "slots", "ahead", "batch", "logs")))
    if kind == "progress":
        return wire.progress(told["job"], told["attempt"], told["fraction"], told["message"])
    if kind == "log":
        return wire.log(told["job"], told["attempt"], told["text"])
    if kind == "done":
        return wire.done(told["job"], told["attempt"])
    if kind == "error":
        texts = ErrorTexts(told["message"], told["exception_type"], told["exception_traceback"])
        return wire.error(told["job"], told["attempt"], texts)
    assert kind == "pong"
    return wire.pong(told["nonce"])


@pytest.mark.parametrize("golden", names(lambda golden: golden["to"] == "runner"))
def test_what_the_shepherd_says_is_read(golden):
    assert wire.decode(golden["frame"].encode()) == [read(told) for told in golden["messages"]]


@pytest.mark.parametrize("golden", names(lambda golden: "python" in golden["written_by"]))
def test_what_the_shepherd_is_told_has_these_bytes(golden):
    messages = [write(told) for told in golden.get("given", golden["messages"])]
    assert list(wire.frames(messages, wire.MAX_BATCH)) == [golden["frame"].encode()]


def test_a_shepherd_is_asked_for_the_proof_that_he_gives():
    challenge = Challenge(HANDSHAKE["token"], HANDSHAKE["runners"])
    assert challenge.frame == HANDSHAKE["challenge"].encode()
    assert challenge.answer(HANDSHAKE["shepherd"].encode()) == HANDSHAKE["runner"].encode()


@pytest.mark.parametrize(
    "frame", [b"", b"\xff", b"[]", b'{"message":5}', b'{"message":{"message_type":"ProofMessage","proof":"\xc3\xa9"}}']
)
def test_other_messages_are_no_proofs(frame):
    challenge = Challenge(HANDSHAKE["token"], HANDSHAKE["runners"])
    assert challenge.answer(frame) is None
    assert challenge.answer(HANDSHAKE["runner"].encode()) is None
    assert Challenge(HANDSHAKE["token"]).answer(HANDSHAKE["shepherd"].encode()) is None, "that of another connection"
    assert Challenge("a guess", HANDSHAKE["runners"]).answer(HANDSHAKE["shepherd"].encode()) is None
