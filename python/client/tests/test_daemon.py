"""Both halves of the client against the real daemon."""

import io
import json
import socket
import threading
import time
import uuid
from pathlib import Path

import pytest
from conftest import Make
from daemon import ACCESS_KEY, LONG, SECRET_KEY, Cutter, Site

from shepherd_client import (
    AlreadyFinished,
    AlreadySubmitted,
    FileNotFound,
    JobCancelled,
    JobFailed,
    JobNotFound,
    Model,
    Rejected,
    State,
    Storage,
    StorageError,
    StorageRequired,
    Unavailable,
    WaitTimeout,
)


def fresh() -> str:
    return f"job-{uuid.uuid4()}"


def storage(site: Site) -> Storage:
    pytest.importorskip("boto3")
    return Storage(site.s3, ACCESS_KEY, SECRET_KEY)


def test_a_payload_becomes_a_result(flock: Site, make: Make) -> None:
    client = make(flock.url + "/")
    assert client.run("upper", "1", "counting sheep", timeout=LONG) == b"COUNTING SHEEP"
    job = client.submit("copy", "1", payload="žluťoučký \U0001f411 \x00 \"kůň\"\n")
    status = job.wait(LONG)
    assert (status.state, status.model, status.error) == (State.DONE, Model("copy", "1"), None)
    assert status.enqueued_at <= status.started_at <= status.finished_at
    assert job.status() == status
    assert job.result("input").decode() == "žluťoučký \U0001f411 \x00 \"kůň\"\n"


def test_json_and_a_file_are_inputs(flock: Site, make: Make, tmp_path: Path) -> None:
    client = make(flock.url)
    value = {"ž": [1, None, "x"]}
    assert client.submit("copy", "1", json=value).result_json("input", timeout=LONG) == value
    assert client.submit("copy", "1", json=None).result_json("input", timeout=LONG) is None
    (tmp_path / "some").write_bytes(b"of a file")
    assert client.run("upper", "1", file=tmp_path / "some", timeout=LONG) == b"OF A FILE"
    assert client.run("upper", "1", files={"input": tmp_path / "some"}, timeout=LONG) == b"OF A FILE"


def test_what_cannot_go_without_storage_says_so(flock: Site, make: Make) -> None:
    client = make(flock.url)
    for options in ({"payload": b"\xff"}, {"files": {"a": b"1", "b": b"2"}}):
        with pytest.raises(StorageRequired, match="storage="):
            client.submit("copy", "1", **options)
    with pytest.raises(TypeError):
        client.submit("copy", "1", payload="x", json=1)
    with pytest.raises(TypeError):
        client.submit("copy", "1")
    job = client.submit("upper", "1", payload="x")
    with pytest.raises(StorageRequired):
        job.outputs()


def test_an_empty_input_is_an_input(flock: Site, make: Make) -> None:
    client, job_id = make(flock.url), fresh()
    for payload in ("", b""):
        assert client.submit("copy", "1", payload).result("input", timeout=LONG) == b""
    job = client.submit("upper", "1", "", job_id=job_id)
    assert job.result(timeout=LONG) == b""
    # With its inputs there already, the shepherd would take it for a rerun.
    with pytest.raises(AlreadySubmitted):
        client.submit("upper", "1", "", job_id=job_id)
    assert client.submit("upper", "1", "", job_id=job_id, exist_ok=True).id == job_id
    with pytest.raises(AlreadySubmitted):
        client.submit("copy", "1", "", job_id=job_id, exist_ok=True)


def test_run_takes_what_submit_takes(flock: Site, make: Make) -> None:
    client, job_id = make(flock.url), fresh()
    for _ in range(2):
        output = client.run(
            "upper", "1", "x", job_id=job_id, sheep="dolly", priority=3, exist_ok=True, timeout=LONG
        )
        assert output == b"X"
    assert client.job(job_id).status().state is State.DONE


def test_a_live_job_with_another_model_is_not_taken_for_ones_own(site: Site, make: Make) -> None:
    client = make(site.url)
    job = client.submit("gate", "1", "x")
    with pytest.raises(AlreadySubmitted):
        client.submit("upper", "1", job_id=job.id)
    assert client.submit("gate", "1", job_id=job.id).id == job.id
    site.gate.touch()
    assert job.result(timeout=LONG) == b"x"
    assert job.status().model == Model("gate", "1")


def test_a_shepherd_that_keeps_silent_is_not_waited_for_beyond_the_time_given(make: Make) -> None:
    # It takes connections and requests, as one that was stopped does, and never answers.
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        client = make(f"http://127.0.0.1:{silent.getsockname()[1]}", retry_for=0.1)
        job, began = client.job("some-job"), time.monotonic()
        for ask in (job.wait, lambda timeout: job.result(timeout=timeout)):
            with pytest.raises(WaitTimeout):
                ask(0.3)
        with pytest.raises(Unavailable, match="does not answer"):
            job.status()
        # Each of them took 20 seconds or more beyond its time.
        assert time.monotonic() - began < 15


def test_a_dead_proxy_is_not_in_the_way_of_this_machine(
    flock: Site, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://user:pass-word@127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    client = make(flock.url, storage=storage(flock), retry_for=0.1)
    job = client.submit("copy", "1", files={"a": b"1", "b": b"2"})
    assert sorted(job.outputs(timeout=LONG)) == ["a", "b"]
    with pytest.raises(Unavailable, match="through the proxy http://127.0.0.1:1,") as caught:
        make("http://shepherd.invalid:5000", retry_for=0.1).status()
    assert "pass-word" not in str(caught.value)


def test_a_failed_job_says_why(flock: Site, make: Make) -> None:
    job = make(flock.url).submit("sad", "1", payload="x")
    with pytest.raises(JobFailed, match="žádná tráva") as caught:
        job.result(timeout=LONG)
    assert not isinstance(caught.value, JobCancelled)
    assert caught.value.job_id == job.id
    status = job.wait()
    assert status.state is State.FAILED and status.finished and not status.cancelled
    assert "žádná tráva" in status.error.message == caught.value.message


def test_unknown_jobs_are_unknown_on_every_route(flock: Site, make: Make) -> None:
    client = make(flock.url)
    for job_id in ("no-such-job", "..", "a/b", "ž?#%", ""):
        job = client.job(job_id)
        for ask in (job.status, job.wait, job.result, job.cancel, job.logs):
            with pytest.raises(JobNotFound):
                ask()
        for stream in (job.events, job.follow_logs):
            with pytest.raises(JobNotFound):
                list(stream())


def test_wrong_requests_are_rejected_with_the_reason(flock: Site, make: Make) -> None:
    client = make(flock.url)
    with pytest.raises(Rejected, match="job_id"):
        client.submit("upper", "1", payload="x", job_id="Not A Bucket")
    with pytest.raises(Rejected, match="Unknown sheep"):
        client.submit("upper", "1", payload="x", sheep="wolf")
    with pytest.raises(Rejected, match="does not exist"):
        client.submit("upper", "1", job_id=fresh())
    with pytest.raises(Rejected, match="status"):
        list(client.jobs("lost"))
    done = client.submit("upper", "1", payload="x")
    with pytest.raises(FileNotFound, match="other"):
        done.result("other", timeout=LONG)
    for name in ("../input", "/etc/passwd", "", "a//b"):
        with pytest.raises(Rejected):
            done.result(name, timeout=LONG)


def test_a_job_is_submitted_once(flock: Site, make: Make) -> None:
    client, job_id = make(flock.url), fresh()
    job = client.submit("upper", "1", payload="x", job_id=job_id, sheep="dolly", priority=7)
    assert job.id == job_id
    with pytest.raises(AlreadySubmitted):
        client.submit("upper", "1", payload="x", job_id=job_id)
    assert client.submit("upper", "1", payload="x", job_id=job_id, exist_ok=True).id == job_id
    for model, payload in (("copy", "x"), ("upper", "y")):
        with pytest.raises(AlreadySubmitted):
            client.submit(model, "1", payload=payload, job_id=job_id, exist_ok=True)
    assert job.result(timeout=LONG) == b"X"


def test_a_submit_whose_answer_is_lost_is_repeated(flock: Site, make: Make) -> None:
    cutter = Cutter(flock.port, cuts=3)
    client, job_id = make(cutter.url), fresh()
    job = client.submit("upper", "1", payload="once", job_id=job_id)
    assert cutter.cuts == 0
    assert job.result(timeout=LONG) == b"ONCE"
    assert [one.id for one in client.jobs(limit=50)].count(job_id) == 1
    cutter.cuts = 1
    with pytest.raises(AlreadySubmitted):
        client.submit("upper", "1", payload="another", job_id=job_id)
    cutter.close()


def test_one_who_is_not_there_is_unavailable(make: Make) -> None:
    client = make("http://user:pass-word@127.0.0.1:1/base", retry_for=0.2)
    with pytest.raises(Unavailable, match="http://127.0.0.1:1/base") as caught:
        client.submit("upper", "1", payload="x", job_id="some-job")
    assert caught.value.job_id == "some-job"
    for text in (str(caught.value), repr(caught.value), repr(client)):
        assert "pass-word" not in text
    with pytest.raises(Unavailable):
        client.status()
    with pytest.raises(WaitTimeout):
        client.job("some-job").wait(0.2)
    for url in ("localhost:5000", "ftp://x", "http://", "http://x?secret"):
        with pytest.raises(ValueError) as wrong:
            make(url)
        assert "secret" not in str(wrong.value)


def test_waiting_survives_a_kill_and_a_restart(site: Site, make: Make) -> None:
    client = make(site.url)
    job = client.submit("gate", "1", payload="through")
    with pytest.raises(WaitTimeout) as caught:
        job.wait(0.05)
    assert isinstance(caught.value, TimeoutError)
    results = []
    waiter = threading.Thread(target=lambda: results.append(job.result(timeout=LONG)))
    waiter.start()
    for event in job.events():
        if event.status is not None and event.status.state is State.PROCESSING:
            break
    site.kill()
    site.start()
    site.gate.touch()
    waiter.join(LONG)
    assert results == [b"through"]
    assert job.wait().state is State.DONE


def test_jobs_are_cancelled(site: Site, make: Make) -> None:
    client = make(site.url)
    job = client.submit("gate", "1", payload="x")
    assert job.cancel().cancelled or job.wait(LONG).cancelled
    again = job.cancel()
    assert again.state is State.CANCELLED and again.finished
    # As on the routes of the first shepherd, where it is a failed job.
    assert job.status() == job.wait() == again
    with pytest.raises(JobCancelled):
        job.result(timeout=LONG)
    done = client.submit("upper", "1", payload="x")
    done.wait(LONG)
    with pytest.raises(AlreadyFinished):
        done.cancel()
    assert [(one.id, one.status.state) for one in client.jobs("cancelled")] == [(job.id, State.CANCELLED)]
    assert list(job.events())[-1].status.state is State.CANCELLED


def test_jobs_are_listed_page_by_page(site: Site, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shepherd_client.core._LARGEST_PAGE", 2)
    client = make(site.url)
    assert list(client.jobs()) == []
    ids = [client.submit("upper", "1", payload="x").id for _ in range(5)]
    assert [one.id for one in client.jobs()] == ids[::-1]
    assert [one.id for one in client.jobs(limit=3)] == ids[:1:-1]
    assert list(client.jobs(limit=0)) == []
    client.job(ids[-1]).wait(LONG)
    assert {one.status.model for one in client.jobs()} == {Model("upper", "1")}


def test_the_flock_is_shown(flock: Site, make: Make) -> None:
    client = make(flock.url)
    client.run("upper", "1", "x", timeout=LONG)
    dolly = client.status()["dolly"]
    assert (dolly.id, dolly.type, dolly.model.version) == ("dolly", "bare", "1")
    assert client.readiness().ready


def test_several_inputs_go_by_way_of_storage(flock: Site, make: Make, tmp_path: Path) -> None:
    client = make(flock.url, storage=storage(flock))
    (tmp_path / "č d+%").write_bytes(b"\xff\x00")
    files = {"a": b"bytes", "b/c": "ž", "č d+%": tmp_path / "č d+%", "e": io.BytesIO(b"e" * 100_000), "f": b""}
    job = client.submit("copy", "1", files=files)
    assert sorted(job.outputs(timeout=LONG)) == sorted(files)
    assert job.result("č d+%") == b"\xff\x00"
    saved = job.download(tmp_path / "out")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in saved) == sorted(files)
    assert (tmp_path / "out" / "b" / "c").read_text(encoding="utf-8") == "ž"
    assert (tmp_path / "out" / "e").stat().st_size == 100_000
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == len(files)
    assert client.submit("copy", "1", payload=b"\xff").result("input", timeout=LONG) == b"\xff"
    assert client.submit("copy", "1", files=[tmp_path / "č d+%"]).outputs(timeout=LONG) == ["č d+%"]
    with pytest.raises(AlreadySubmitted):
        client.submit("copy", "1", files=files, job_id=job.id)
    # What is in storage already can be worked on again.
    first = client.submit("copy", "1", payload=b"x")
    assert first.wait(LONG).finished
    again = client.submit("upper", "1", job_id=first.id)
    assert again.wait(LONG).finished


def test_a_stored_submit_whose_answer_is_lost_is_repeated(flock: Site, make: Make) -> None:
    # The first question is whether the job is there.
    cutter = Cutter(flock.port, cuts=2)
    job = make(cutter.url, storage=storage(flock)).submit("copy", "1", files={"a": b"1", "b": b"2"})
    assert cutter.cuts == 0
    assert sorted(job.outputs(timeout=LONG)) == ["a", "b"]
    cutter.close()


def test_keys_are_told_to_nobody(flock: Site, make: Make) -> None:
    pytest.importorskip("boto3")
    wrong = Storage(flock.s3, ACCESS_KEY, "a-wrong-secret")
    client = make(flock.url, storage=wrong)
    with pytest.raises(StorageError, match="SignatureDoesNotMatch") as caught:
        client.submit("copy", "1", files={"a": b"1"})
    for text in (repr(wrong), repr(client), str(caught.value), repr(caught.value)):
        assert "a-wrong-secret" not in text and ACCESS_KEY not in text


def test_downloads_without_storage_take_names(flock: Site, make: Make, tmp_path: Path) -> None:
    job = make(flock.url).submit("upper", "1", payload="x")
    assert job.download(str(tmp_path), ["output"], timeout=LONG) == [tmp_path / "output"]
    assert (tmp_path / "output").read_bytes() == b"X"
    for name in ("../x", "no-such"):
        with pytest.raises(Rejected):
            job.download(tmp_path, [name])
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_what_a_job_prints_can_be_read_and_followed(site: Site, make: Make) -> None:
    client = make(site.url)
    job = client.submit("talk", "1", payload="x")
    assert "".join(job.follow_logs()) == "one\nžluť\n"
    assert job.logs() == "one\nžluť\n"
    silent = client.submit("upper", "1", payload="x")
    assert list(silent.follow_logs()) == []


def test_events_end_with_the_job_and_can_be_resumed(site: Site, make: Make) -> None:
    client = make(site.url)
    job = client.submit("gate", "1", payload="x")
    events = job.events()
    first = next(events)
    site.gate.touch()
    rest = list(events)
    assert rest[-1].status.state is State.DONE
    assert list(job.events(after=rest[-1].id)) == []
    assert list(job.events(after=first.id))[-1] == rest[-1]
    with pytest.raises(Rejected):
        list(job.events(after="nonsense"))


def test_events_survive_a_kill_and_a_restart(site: Site, make: Make) -> None:
    job = make(site.url).submit("gate", "1", payload="x")
    events = job.events()
    states = [next(events).status.state]
    site.kill()
    site.start()
    site.gate.touch()
    states += [event.status.state for event in events if event.status is not None]
    assert states[-1] is State.DONE


def test_bodies_are_not_escaped() -> None:
    from shepherd_client.wire import start_body

    body = start_body("a", "m", "1", "ž", None, None)
    assert "ž".encode() in body
    assert json.loads(body) == {"job_id": "a", "model": {"name": "m", "version": "1"}, "payload": "ž"}
    with pytest.raises(Rejected):
        start_body("a", "m", "1", "\ud800", None, None)
