"""What needs no daemon."""

from typing import Any, Dict

import pytest

from shepherd_client import proxies
from shepherd_client.errors import Rejected, UnexpectedAnswer
from shepherd_client.follow import Log
from shepherd_client.inputs import UNSET, inputs
from shepherd_client.patience import Deadline, Patience
from shepherd_client.records import State, job_status
from shepherd_client.sse import Frame, Parser
from shepherd_client.transport import Request
from shepherd_client.wire import file_path, job_path


def test_events_are_found_however_they_are_cut() -> None:
    text = b'retry: 2000\n\n:\n\nid: 1-2\nevent: status\ndata: {"a":\ndata: "\xc5\xbe"}\n\ndata: x\r\n\r\nid: 3\n\n'
    whole = [Frame("1-2", "status", '{"a":\n"ž"}'), Frame("1-2", "", "x")]
    for size in range(1, len(text) + 1):
        parser = Parser()
        found = [frame for at in range(0, len(text), size) for frame in parser.feed(text[at : at + size])]
        assert found == whole, size


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_log_is_taken_up_where_it_broke_off(size: int) -> None:
    log = Log()

    def connection(text: str) -> str:
        data = text.encode()
        log.begin()
        return "".join(log.feed(data[at : at + size]) for at in range(0, len(data), size))

    assert connection("one\nž") == "one\nž"
    assert connection("one\n") == ""
    assert connection("one\nžluť\n") == "luť\n"
    # Another attempt.
    assert connection("one\nother\n") == "one\nother\n"
    assert connection("one\nother\nend") == "end"


def test_paths_are_quoted() -> None:
    assert job_path("a b/č", "status") == "/jobs/a%20b%2F%C4%8D/status"
    assert file_path("a", "result", None) == "/jobs/a/result"
    assert file_path("a", "result", "b/č?#%+") == "/jobs/a/result/b/%C4%8D%3F%23%25%2B"
    for name in ("", "/a", "a/../b", ".", "a/", "\ud800"):
        with pytest.raises(Rejected):
            file_path("a", "result", name)


def test_patience_ends_and_is_restored() -> None:
    patience = Patience(0.0)
    assert patience.pause() is None
    patience = Patience(1000.0)
    pauses = [patience.pause() or 0.0 for _ in range(20)]
    assert 0.0 < pauses[0] <= 0.05 and max(pauses) <= 2.0
    patience.restore()
    assert (patience.pause() or 1.0) <= 0.05


@pytest.mark.parametrize("value", [None, [], {}, {"status": "lost", "model": {}}, {"status": "done", "model": 1}])
def test_what_is_no_status_is_not_taken_for_one(value: object) -> None:
    with pytest.raises(UnexpectedAnswer):
        job_status(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"payload": {"a": 1}}, "payload must be str or bytes, not dict: json="),
        ({"payload": 1}, "payload must be str or bytes, not int"),
        ({"file": b"x"}, "file must be a path, not bytes"),
        ({"files": "a.png"}, "files must be a mapping or a list of paths, not str"),
        ({"files": ["a.png"]}, "files must be a mapping from names, or pathlib paths, not str"),
        ({"files": {"a": 1}}, "file 'a' must be str, bytes, a path or a binary file, not int"),
        ({"files": {1: b"x"}}, "names of files must be str, not int"),
        ({"payload": "x", "file": "y"}, "only one of"),
    ],
)
def test_an_input_of_a_wrong_type_says_so(options: Dict[str, Any], named: str) -> None:
    given: Dict[str, Any] = {"payload": None, "value": UNSET, "file": None, "files": None, **options}
    with pytest.raises(TypeError, match=named):
        inputs(**given, storage=True)


def test_no_limit_of_a_request_passes_the_deadline() -> None:
    limits = Request("GET", "http://a", silence=60.0, deadline=Deadline("a", 2.0)).options()["extensions"]["timeout"]
    assert all(0.0 < limits.get(key) <= 2.0 for key in ("connect", "read", "write", "pool"))
    limits = Request("GET", "http://a", silence=60.0, deadline=Deadline("a", 0.0)).options()["extensions"]["timeout"]
    assert 0.0 < limits.get("read") < 0.01
    assert Request("GET", "http://a", silence=60.0).options()["extensions"]["timeout"].get("read") == 60.0


def test_silence_is_part_of_the_outage() -> None:
    patience = Patience(30.0)
    assert 29.0 < patience.silence() <= 30.0
    assert patience.pause(20.0) is not None
    assert 9.0 < patience.silence() <= 10.0
    assert Patience(30.0).pause(30.0) is None
    assert Patience(0.0).silence() == 5.0
    assert Patience(1000.0).silence() == 60.0


def test_a_cancelled_job_is_known_on_all_routes() -> None:
    error = {"message": "The job was cancelled", "exception_type": None, "exception_traceback": None}
    for word in ("failed", "cancelled"):
        status = job_status({"status": word, "error_details": error, "model": {"name": "m", "version": "1"}})
        assert status.state is State.CANCELLED and status.finished and status.cancelled
    error["exception_type"] = "E"
    status = job_status({"status": "failed", "error_details": error, "model": {"name": "m", "version": "1"}})
    assert status.state is State.FAILED and not status.cancelled


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost", "a.localhost"])
def test_no_proxy_is_used_for_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://u:p@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert list(proxies.direct(f"http://{host}:5000/x")) == [f"all://{host}"]
    assert proxies.of(f"http://{host}:5000") is None
    assert proxies.direct("http://shepherd.example") == {}
    assert proxies.of("http://shepherd.example") == "http://proxy.example:3128"
    assert proxies.of("http://inside.example") is None
