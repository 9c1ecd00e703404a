"""What needs no daemon."""

import pytest

from shepherd_client.errors import Rejected, UnexpectedAnswer
from shepherd_client.follow import Log
from shepherd_client.patience import Patience
from shepherd_client.records import job_status
from shepherd_client.sse import Frame, Parser
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
