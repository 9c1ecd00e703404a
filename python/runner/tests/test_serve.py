"""Runners as processes, against a shepherd that speaks the wire."""

import signal

from shepherd import ATTEMPT, LONG, Shepherd, cancel, cancelled, done, ping, shutdown

UPPER = """
class R(Runner):
    def process(self, job):
        text = (job.inputs / "input").read_text()
        (job.outputs / "output").write_text(f"{job.id} {job.attempt} {text.upper()}")
"""

WAIT = """
class R(Runner):
    def process(self, job):
        (job.outputs / "began").touch()
        while not (job.inputs / "go").exists():
            if job.cancelled:
                return
            time.sleep(0.005)
"""

DEAF = """
class R(Runner):
    def process(self, job):
        (job.outputs / "began").touch()
        while not (job.inputs / "go").exists():
            time.sleep(0.005)
"""


def go(shepherd: Shepherd, job_id: str) -> None:
    (shepherd.data / job_id / "inputs" / "go").touch()


def end(shepherd: Shepherd) -> None:
    shepherd.send(shutdown())
    assert shepherd.exit() == 0


def test_jobs_are_done_in_order_on_their_files(shepherd):
    ready = shepherd.start(UPPER)
    assert ready == {
        "protocol": 1,
        "name": "model.R (Python)",
        "slots": 1,
        "ahead": 32,
        "batch": 33,
        "logs": True,
        "message_type": "ReadyMessage",
    }
    ids = [f"job-{number}" for number in range(100)] + ["práce-羊"]
    shepherd.send(*(shepherd.input(id) for id in ids))
    for id in ids:
        assert shepherd.message() == done(id)
        assert shepherd.output(id) == f"{id} {ATTEMPT} PAYLOAD"
    end(shepherd)
    assert shepherd.printed() == ""


def test_exceptions_are_the_jobs_and_the_runner_goes_on(shepherd):
    shepherd.start(
        """
        class Own(BaseException):
            def __str__(self):
                raise ValueError("no text")

        def deep():
            raise KeyError("pixel")

        class R(Runner):
            def process(self, job):
                if job.id == "deep":
                    try:
                        deep()
                    except KeyError as error:
                        raise ValueError("bad \\udc80 picture") from error
                if job.id == "exit":
                    sys.exit(7)
                if job.id == "own":
                    raise Own
                if job.id == "empty":
                    raise ValueError
                if job.id == "cancelled":
                    raise Cancelled("nobody asked")
                if job.id == "long":
                    raise ValueError("x" * 10_000_000)
        """
    )
    ids = ["deep", "exit", "own", "empty", "cancelled", "long", "good"]
    shepherd.send(*(shepherd.input(id) for id in ids))
    deep, exited, own, empty, raised, long, good = shepherd.messages(7)
    assert (deep["message_type"], deep["job_id"], deep["attempt"]) == ("ErrorMessage", "deep", ATTEMPT)
    assert (deep["message"], deep["exception_type"]) == ("bad \\udc80 picture", "ValueError")
    assert "in deep" in deep["exception_traceback"] and "KeyError: 'pixel'" in deep["exception_traceback"]
    assert "workers.py" not in deep["exception_traceback"]
    assert (exited["message"], exited["exception_type"]) == ("the model tried to exit with 7", "SystemExit")
    assert own["message"] == "an exception whose text cannot be had: ValueError"
    assert own["exception_type"] == "model.Own"
    assert (empty["message"], empty["exception_type"]) == ("ValueError", "ValueError")
    # Only the answer to a cancellation has the bare type.
    assert raised["exception_type"] == "shepherd_runner.errors.Cancelled"
    assert len(long["message"]) < 70_000 and len(long["exception_traceback"]) < 140_000
    assert good == done("good")
    end(shepherd)


def test_heartbeats_are_answered_while_a_job_computes(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                (job.outputs / "began").touch()
                while not os.path.exists(job.inputs / "go"):
                    sum(range(1000))
        """
    )
    shepherd.send(shepherd.input("long"))
    shepherd.wait_for("long/outputs/began")
    for nonce in range(5):
        shepherd.send(ping(nonce))
        assert shepherd.message() == {"nonce": nonce, "message_type": "PongMessage"}
    go(shepherd, "long")
    assert shepherd.message() == done("long")
    end(shepherd)


def test_heartbeats_are_answered_while_the_model_loads(shepherd):
    shepherd.launch(
        """
        class R(Runner):
            def setup(self, config):
                while not os.path.exists("go"):
                    time.sleep(0.005)
            def process(self, job):
                pass
        """
    )
    shepherd.dial()
    shepherd.send(ping(1))
    assert shepherd.message() == {"nonce": 1, "message_type": "PongMessage"}
    (shepherd.directory / "go").touch()
    shepherd.ready()
    end(shepherd)


def test_no_answer_waits_for_the_next_job(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                while job.id == "long" and not (job.inputs / "go").exists():
                    time.sleep(0.005)
        """
    )
    shepherd.send(*(shepherd.input(id) for id in ("one", "two", "long")))
    assert shepherd.messages(2) == [done("one"), done("two")]
    go(shepherd, "long")
    assert shepherd.message() == done("long")
    end(shepherd)


def test_the_configuration_is_read_and_the_model_loaded_once(shepherd):
    ready = shepherd.start(
        """
        class R(Runner):
            def setup(self, config):
                print("loaded", config["suffix"], config.get("none"), config.stream, config.path.name)
                self.config = config
                self.slots = config["slots"]
            def process(self, job):
                assert threading.current_thread() is not threading.main_thread()
        """,
        "-s",
        "other",
        config='{"suffix": "!", "slots": 3}',
    )
    assert ready["slots"] == 3
    shepherd.send(*(shepherd.input(id) for id in "abcd"))
    assert sorted(m["job_id"] for m in shepherd.messages(4)) == list("abcd")
    end(shepherd)
    assert shepherd.printed() == "loaded ! None other config.yaml\n"


def test_a_model_that_does_not_load_ends_the_runner(shepherd):
    shepherd.launch(
        """
        class R(Runner):
            def setup(self, config):
                raise OSError("no weights")
        """
    )
    assert shepherd.exit() == 1
    assert "OSError: no weights" in shepherd.printed()


def test_progress_comes_before_the_end(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                job.progress(0.25, "loading")
                job.progress(0.5, "dropped, because it comes at once")
        """
    )
    shepherd.send(shepherd.input("one"))
    first, second = shepherd.messages(2)
    assert first == {
        "job_id": "one",
        "attempt": ATTEMPT,
        "fraction": 0.25,
        "message": "loading",
        "message_type": "ProgressMessage",
    }
    assert second == done("one")
    end(shepherd)


def test_a_generator_streams_progress_and_is_ended_where_it_yields(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                values = {"fraction": 0.5, "text": "half", "both": (2, "all"), "none": None, "bad": [1]}
                try:
                    while True:
                        yield values[job.id]
                        if job.id != "both":
                            return
                        time.sleep(0.005)
                finally:
                    (job.outputs / "cleaned").touch()
        """
    )
    for id, wanted in [("fraction", {"fraction": 0.5}), ("text", {"message": "half"})]:
        shepherd.send(shepherd.input(id))
        progress, end_ = shepherd.messages(2)
        assert {key: progress[key] for key in ("fraction", "message") if key in progress} == wanted
        assert end_ == done(id)
    shepherd.send(shepherd.input("none"))
    assert shepherd.message() == done("none")
    shepherd.send(shepherd.input("bad"))
    bad = shepherd.message()
    assert (bad["exception_type"], "[1]" in bad["message"]) == ("TypeError", True)
    shepherd.send(shepherd.input("both"))
    progress = shepherd.message()
    assert (progress["fraction"], progress["message"]) == (1.0, "all")
    shepherd.send(cancel("both"))
    answer = shepherd.message()
    while answer["message_type"] == "ProgressMessage":
        answer = shepherd.message()
    assert answer == cancelled("both")
    assert shepherd.output("both", "cleaned") == ""
    end(shepherd)


def test_a_cancelled_job_is_told_and_answered_and_the_waiting_ones_too(shepherd):
    shepherd.start(WAIT)
    shepherd.send(shepherd.input("works"), shepherd.input("waits"), shepherd.input("next"))
    shepherd.wait_for("works/outputs/began")
    shepherd.send(cancel("waits"), cancel("unknown"), cancel("works", "1.0"))
    assert shepherd.message() == cancelled("waits")
    shepherd.send(cancel("works"))
    assert shepherd.message() == cancelled("works")
    go(shepherd, "next")
    assert shepherd.message() == done("next")
    assert not (shepherd.data / "waits" / "outputs" / "began").exists()
    end(shepherd)


def test_a_job_that_ends_without_looking_is_done_although_it_was_cancelled(shepherd):
    shepherd.start(DEAF)
    shepherd.send(shepherd.input("deaf"))
    shepherd.wait_for("deaf/outputs/began")
    shepherd.send(cancel("deaf"), ping(1))
    assert shepherd.message()["nonce"] == 1
    go(shepherd, "deaf")
    assert shepherd.message() == done("deaf")
    end(shepherd)


def test_a_shutdown_lets_a_job_end_that_does_not_look(shepherd):
    shepherd.start(DEAF)
    shepherd.send(shepherd.input("works"), shepherd.input("waits"))
    shepherd.wait_for("works/outputs/began")
    shepherd.send(shutdown())
    # Another runner gets what has not begun, at once and without blame.
    assert shepherd.message() == cancelled("waits")
    shepherd.send(shepherd.input("late"))
    assert shepherd.message() == cancelled("late")
    go(shepherd, "works")
    assert shepherd.message() == done("works")
    assert shepherd.exit() == 0
    assert not (shepherd.data / "waits" / "outputs" / "began").exists()


def test_a_job_that_gives_up_at_a_signal_is_not_answered(shepherd):
    shepherd.start(WAIT)
    shepherd.send(shepherd.input("works"))
    shepherd.wait_for("works/outputs/began")
    shepherd.signal(signal.SIGTERM)
    assert shepherd.exit() == 0
    assert shepherd.printed() == ""


def test_a_job_that_does_not_end_in_time_is_left(shepherd):
    shepherd.start(DEAF)
    shepherd.send(shepherd.input("works"))
    shepherd.wait_for("works/outputs/began")
    shepherd.send(shutdown(0))
    assert shepherd.exit() == 1
    assert "abandoned" in shepherd.printed()


def test_a_second_signal_ends_at_once_even_inside_a_library(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                import ctypes
                (job.outputs / "began").touch()
                # Lets go of the interpreter's lock and does not come back to it.
                while True:
                    ctypes.CDLL(None).sleep(1000)
        """
    )
    shepherd.send(shepherd.input("works"))
    shepherd.wait_for("works/outputs/began")
    shepherd.signal(signal.SIGINT)
    # Both reach the pipe in their order, however close.
    shepherd.send(ping(1))
    assert shepherd.message()["nonce"] == 1
    shepherd.signal(signal.SIGTERM)
    assert shepherd.exit() in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_children_that_a_model_forks_neither_hear_nor_send_its_signals(shepherd):
    shepherd.start(
        """
        import multiprocessing, signal
        class R(Runner):
            def process(self, job):
                child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
                child.start()
                child.terminate()
                child.join()
                (job.outputs / "output").write_text(str(child.exitcode))
        """
    )
    for id in ("one", "two"):
        shepherd.send(shepherd.input(id))
        assert shepherd.message() == done(id)
        assert shepherd.output(id) == str(-signal.SIGTERM)
    end(shepherd)


def test_garbage_is_passed_over(shepherd):
    shepherd.start(UPPER)
    for frame in [
        b"",
        b"nonsense",
        b"[" * 100_000,
        b"\xff\xfe",
        b"5",
        b"{}",
        b'{"message": null}',
        b'{"messages": 5}',
        b'{"messages": []}',
        b'{"message": {"message_type": "NewMessage"}}',
        b'{"message": {"message_type": "PingMessage", "nonce": true}}',
        b'{"message": {"message_type": "InputMessage", "job_id": "a", "io_data_root": "/"}}',
        b'{"message": {"message_type": "InputMessage", "job_id": "../a", "attempt": "1.1", "io_data_root": "/"}}',
        b'{"message": {"message_type": "ShutdownMessage", "grace": -1}}',
        b'{"message": {"message_type": "ShutdownMessage", "grace": NaN}}',
    ]:
        shepherd.raw(frame)
    shepherd.send({"message_type": "?"}, shepherd.input("good", unknown={"a": 1}), {"job_id": 5})
    assert shepherd.message() == done("good")
    end(shepherd)
    printed = shepherd.printed()
    assert printed.count("ignored a message") == 17, printed


def test_a_shepherd_that_is_gone_stops_its_jobs_and_the_next_gets_none_of_their_answers(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                (job.outputs / "began").touch()
                while job.id == "works" and not (job.inputs / "go").exists():
                    if job.stop_reason is not None:
                        (job.outputs / "told").write_text(job.stop_reason.name)
                    time.sleep(0.005)
        """
    )
    shepherd.send(shepherd.input("works"), shepherd.input("waits"))
    shepherd.wait_for("works/outputs/began")
    shepherd.hang_up()
    shepherd.wait_for("works/outputs/told")
    shepherd.ready()
    shepherd.send(shepherd.input("new", "2.1"))
    go(shepherd, "works")
    assert shepherd.message() == done("new", "2.1")
    shepherd.silence()
    assert shepherd.output("works", "told") == "DISCONNECTED"
    assert not (shepherd.data / "waits" / "outputs" / "began").exists()
    end(shepherd)


def test_an_orphan_ends(shepherd):
    shepherd.stage("x")
    (shepherd.directory / "model.py").write_text("from shepherd_runner import *\nclass R(Runner): pass\n")
    (shepherd.directory / "config.yaml").write_text("")
    # The shell's end makes the runner an orphan, and nobody has ever dialled it. Its end closes the pipe.
    shepherd.execute(
        "-c",
        "import subprocess, sys;"
        "subprocess.Popen([sys.executable, '-m', 'shepherd_runner', '-r', 'model.R', 'config.yaml']);"
        "import os, time\n"
        "while not os.path.exists('runner.sock'): time.sleep(0.01)",
    )
    assert shepherd.exit() == 0
    shepherd.process.communicate(timeout=LONG)


def test_what_a_job_prints_comes_by_lines_and_before_its_answer(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                print("line of", job.id)
                sys.stdout.write("č\\udc80 no end")
        """,
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
    )
    shepherd.send(shepherd.input("one"))
    log, answer = shepherd.messages(2)
    assert (log["message_type"], answer) == ("LogMessage", done("one"))
    assert shepherd.process.stdout.readline() == "line of one\n"
    end(shepherd)
    assert shepherd.process.stdout.read() == "\\u010d\\udc80 no end"


def test_batches_hold_what_waits_and_a_job_fails_only_by_its_own_fault(shepherd):
    ready = shepherd.start(
        """
        class R(Runner):
            max_batch = 4
            def process_batch(self, jobs):
                for job in jobs:
                    with open(job.outputs / "output", "a") as file:
                        file.write(str(len(jobs)))
                    if job.id == "told":
                        job.fail(KeyError("told"))
                    if job.id == "raises":
                        raise ValueError("raised")
                    while job.id == "first" and not (job.inputs / "go").exists():
                        time.sleep(0.005)
        """
    )
    assert (ready["slots"], ready["ahead"]) == (4, 32)
    shepherd.send(shepherd.input("first"))
    shepherd.wait_for("first/outputs/output")
    ids = ["a", "b", "c", "d", "e", "raises", "f"]
    shepherd.send(*(shepherd.input(id) for id in ids), ping(1))
    assert shepherd.message()["nonce"] == 1
    go(shepherd, "first")
    answers = {message["job_id"]: message for message in shepherd.messages(8)}
    assert answers.pop("raises")["message"] == "raised"
    assert answers == {id: done(id) for id in ["first", *ids] if id != "raises"}
    assert [shepherd.output(id) for id in ids] == ["4", "4", "4", "4", "1", "1", "1"]
    shepherd.send(shepherd.input("told"), shepherd.input("other"))
    told, other = shepherd.messages(2)
    assert (told["exception_type"], other) == ("KeyError", done("other"))
    end(shepherd)


def test_a_batch_waits_for_its_longest_time_to_become_full(shepherd):
    shepherd.start(
        """
        class R(Runner):
            max_batch = 3
            max_wait = 1000.0
            def process_batch(self, jobs):
                for job in jobs:
                    (job.outputs / "output").write_text(str(len(jobs)))
        """
    )
    shepherd.send(shepherd.input("a"))
    shepherd.silence()
    shepherd.send(shepherd.input("b"))
    shepherd.send(shepherd.input("c"))
    assert shepherd.messages(3) == [done("a"), done("b"), done("c")]
    assert shepherd.output("a") == "3"
    end(shepherd)


def test_slots_work_at_the_same_time(shepherd):
    ready = shepherd.start(
        """
        class R(Runner):
            slots = 3
            def setup(self, config):
                self.barrier = threading.Barrier(3)
            def process(self, job):
                self.barrier.wait()
        """
    )
    assert (ready["slots"], ready["ahead"]) == (3, 32)
    shepherd.send(*(shepherd.input(id) for id in "abc"))
    assert sorted(m["job_id"] for m in shepherd.messages(3)) == list("abc")
    end(shepherd)


ASYNC = """
class R(Runner):
    slots = 3
    async def setup(self, config):
        self.barrier = asyncio.Event()
        self.count = 0
    async def process(self, job):
        (job.outputs / "began").touch()
        if job.id.startswith("wait"):
            try:
                await asyncio.sleep(1000)
            finally:
                (job.outputs / "cleaned").touch()
        if job.id == "raises":
            raise ValueError("bad")
        if job.id == "exit":
            sys.exit(3)
        self.count += 1
        if self.count == 3:
            self.barrier.set()
        await self.barrier.wait()
"""


def test_async_jobs_share_a_loop(shepherd):
    shepherd.start(ASYNC)
    shepherd.send(*(shepherd.input(id) for id in ("raises", "exit", "a", "b", "c", "d")))
    answers = {message["job_id"]: message for message in shepherd.messages(6)}
    assert answers["raises"]["exception_type"] == "ValueError"
    assert answers["exit"]["exception_type"] == "SystemExit"
    assert [answers[id] for id in "abcd"] == [done(id) for id in "abcd"]
    end(shepherd)


def test_an_async_job_is_cancelled_as_a_task(shepherd):
    shepherd.start(ASYNC)
    shepherd.send(shepherd.input("wait-1"), shepherd.input("wait-2"))
    shepherd.wait_for("wait-1/outputs/began")
    shepherd.send(cancel("wait-1"))
    assert shepherd.message() == cancelled("wait-1")
    assert shepherd.output("wait-1", "cleaned") == ""
    shepherd.wait_for("wait-2/outputs/began")
    shepherd.signal(signal.SIGTERM)
    assert shepherd.exit() == 0
    assert shepherd.output("wait-2", "cleaned") == ""


def test_async_generators_stream_progress(shepherd):
    shepherd.start(
        """
        class R(Runner):
            async def process(self, job):
                yield 0.5, "half"
                await asyncio.sleep(0)
        """
    )
    shepherd.send(shepherd.input("one"))
    progress, end_ = shepherd.messages(2)
    assert (progress["fraction"], progress["message"], end_) == (0.5, "half", done("one"))
    end(shepherd)


def test_serve_works_without_arguments(shepherd):
    (shepherd.directory / "program.py").write_text(
        "from shepherd_runner import Runner, serve\n"
        "class Nothing(Runner):\n"
        "    def process(self, job): pass\n"
        "    def teardown(self): print('torn down')\n"
        "serve(Nothing())\n"
    )
    shepherd.execute("program.py")
    assert shepherd.ready()["name"] == "Nothing"
    shepherd.send(shepherd.input("one"))
    assert shepherd.message() == done("one")
    end(shepherd)
    assert shepherd.printed() == "torn down\n"


def test_the_class_in_runner_yaml_beats_the_one_of_the_command_line(shepherd):
    (shepherd.directory / "runner.yaml").write_text("runner: {class: model.Other}")
    source = """
        class R(Runner):
            def process(self, job): (job.outputs / "output").write_text("R")
        class Other(Runner):
            def process(self, job): (job.outputs / "output").write_text("Other")
        """
    shepherd.start(source)
    shepherd.send(shepherd.input("one"))
    assert (shepherd.message(), shepherd.output("one")) == (done("one"), "Other")


def test_the_class_that_shepherd_runner_has_read_needs_no_yaml_here(shepherd):
    (shepherd.directory / "runner.yaml").write_text("runner: [more, {YAML: than is read here}]")
    shepherd.start(
        """
        class R: "no runner"
        class Named(Runner):
            def process(self, job): pass
        """,
        "--class",
        "model.Named",
    )
    shepherd.send(shepherd.input("one"))
    assert shepherd.message() == done("one")


def test_a_directory_stands_for_the_configuration_in_it(shepherd):
    (shepherd.directory / "model.py").write_text(
        "from shepherd_runner import *\n"
        "class R(Runner):\n"
        "    def setup(self, config): self.config = config\n"
        "    def process(self, job): (job.outputs / 'output').write_text(str(self.config.path))\n"
    )
    config = shepherd.directory / "config.yaml"
    config.write_text("")
    shepherd.execute("-m", "shepherd_runner", "-r", "model.R", str(shepherd.directory))
    shepherd.ready()
    shepherd.send(shepherd.input("one"))
    assert shepherd.message() == done("one")
    assert shepherd.output("one") == str(config.resolve())


def test_errors_of_legacy_models_begin_with_the_exceptions_name(shepherd):
    shepherd.start(
        """
        from shepherd.runner import BaseRunner
        class R(BaseRunner):
            def _process_job(self, input_path, output_path):
                raise ValueError("boom") if "boom" in input_path else KeyboardInterrupt()
        """
    )
    for name, message, kind in [("boom", "ValueError: boom", "ValueError"), ("one", "KeyboardInterrupt: ", None)]:
        shepherd.send(shepherd.input(name))
        error = shepherd.message()
        assert (error["message"], error["exception_type"]) == (message, kind or "KeyboardInterrupt")


def test_what_a_legacy_model_raises_while_it_loads_is_the_error_of_each_job(shepherd):
    shepherd.start(
        """
        from shepherd.runner import JSONRunner
        class R(JSONRunner):
            def _load_dataset(self):
                self.tries = getattr(self, "tries", 0) + 1
                raise AttributeError(f"no such dataset, try {self.tries}")
        """
    )
    for job, tried in [("one", 2), ("two", 3)]:
        shepherd.send(shepherd.input(job))
        error = shepherd.message()
        assert error["message"] == f"AttributeError: no such dataset, try {tried}"
        assert "_load_dataset" in error["exception_traceback"]
