"""What models do wrong or in their own way, and what the runner makes of it."""

import signal

import pytest
from shepherd import Shepherd, cancel, cancelled, done, shutdown


def end(shepherd: Shepherd) -> None:
    shepherd.send(shutdown())
    assert shepherd.exit() == 0


def test_a_hook_that_exits_ends_neither_the_reader_nor_the_runner(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                job.on_cancel(lambda _: sys.exit(1))
                (job.outputs / "began").touch()
                while not job.cancelled:
                    time.sleep(0.005)
        """
    )
    shepherd.send(shepherd.input("one"))
    shepherd.wait_for("one/outputs/began")
    shepherd.send(cancel("one"))
    answer = shepherd.message()
    while answer["message_type"] == "LogMessage":
        answer = shepherd.message()
    assert answer == cancelled("one")
    shepherd.silence()
    end(shepherd)


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("how, code", [("sys.exit(3)", 3), ("return", 0), ("raise ValueError", 1)])
def test_a_forked_child_that_comes_back_is_no_second_runner(shepherd, kind, how, code):
    shepherd.start(
        f"""
        class R(Runner):
            {kind} process(self, job):
                child = os.fork()
                if child == 0:
                    {how}
                else:
                    _, status = os.waitpid(child, 0)
                    (job.outputs / "output").write_text(str(os.WEXITSTATUS(status)))
        """
    )
    shepherd.send(shepherd.input("one"))
    answer = shepherd.message()
    while answer["message_type"] == "LogMessage":
        answer = shepherd.message()
    assert (answer, shepherd.output("one")) == (done("one"), str(code))
    shepherd.silence()
    end(shepherd)


@pytest.mark.parametrize("where", ["setup", "job"])
def test_signals_are_heard_beside_an_event_loop_with_its_own(shepherd, where):
    handler = "asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)"
    shepherd.start(
        f"""
        import signal
        async def handle():
            {handler}
        class R(Runner):
            def process(self, job):
                asyncio.run(handle())
        """
        if where == "job"
        else f"""
        import signal
        class R(Runner):
            async def setup(self, config):
                {handler}
            async def process(self, job):
                pass
        """
    )
    shepherd.send(shepherd.input("one"))
    assert shepherd.message() == done("one")
    shepherd.signal(signal.SIGTERM)
    assert shepherd.exit() == 0


def test_a_thread_of_the_model_that_does_not_end_is_abandoned(shepherd):
    shepherd.start(
        """
        from shepherd_runner import shutdown
        shutdown.LINGER = 0.1
        class R(Runner):
            def setup(self, config):
                threading.Thread(target=time.sleep, args=(1000,)).start()
        """
    )
    shepherd.send(shutdown())
    assert shepherd.exit() == 1
    assert "abandoned" in shepherd.printed()


def test_what_was_never_awaited_is_not_done(shepherd):
    shepherd.start(
        """
        def plain(function):
            return lambda *arguments: function(*arguments)
        class R(Runner):
            @plain
            async def process(self, job):
                pass
        """
    )
    shepherd.send(shepherd.input("one"))
    answer = shepherd.message()
    assert (answer["exception_type"], "not declared `async`" in answer["message"]) == ("TypeError", True)
    end(shepherd)


def test_a_batch_cannot_be_a_generator(shepherd):
    shepherd.launch(
        """
        class R(Runner):
            def process_batch(self, jobs):
                yield
        """
    )
    assert shepherd.exit() == 2
    assert "cannot be a generator" in shepherd.printed()


def test_an_async_generator_that_waits_for_nothing_can_be_cancelled(shepherd):
    shepherd.start(
        """
        class R(Runner):
            async def process(self, job):
                try:
                    (job.outputs / "began").touch()
                    while not (job.inputs / "go").exists():
                        time.sleep(0.005)
                        yield
                finally:
                    (job.outputs / "cleaned").touch()
        """
    )
    shepherd.send(shepherd.input("one"))
    shepherd.wait_for("one/outputs/began")
    shepherd.send(cancel("one"))
    assert shepherd.message() == cancelled("one")
    assert shepherd.output("one", "cleaned") == ""
    end(shepherd)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_generator_that_yields_nonsense_cleans_up_before_its_answer(shepherd, kind):
    shepherd.start(
        f"""
        class R(Runner):
            {kind} process(self, job):
                try:
                    yield [1]
                finally:
                    print("cleaned")
        """
    )
    shepherd.send(shepherd.input("one"))
    log, answer = shepherd.messages(2)
    assert (log.get("text"), answer["exception_type"]) == ("cleaned\n", "TypeError")
    end(shepherd)


@pytest.mark.parametrize(
    "members", ["slots = 0; process = go", "max_batch = 0; process_batch = stay"], ids=["slots", "max_batch"]
)
def test_no_slot_and_no_room_in_a_batch_count_as_one(shepherd, members):
    shepherd.start(
        f"""
        async def go(self, job):
            pass
        def stay(self, jobs):
            pass
        class R(Runner):
            {members}
        """
    )
    for id in ("one", "two"):
        shepherd.send(shepherd.input(id))
        assert shepherd.message() == done(id)
    end(shepherd)


def test_a_job_alone_of_its_batch_fails_by_any_exception(shepherd):
    shepherd.start(
        """
        class Falsy(Exception):
            def __len__(self):
                return 0
        class R(Runner):
            max_batch = 3
            max_wait = 1000.0
            def process_batch(self, jobs):
                for job in jobs:
                    if job.id == "exits":
                        sys.exit(1)
                    if job.id == "falsy":
                        raise Falsy
        """
    )
    shepherd.send(*(shepherd.input(id) for id in ("exits", "falsy", "good")))
    exits, falsy, good = shepherd.messages(3)
    assert (exits["exception_type"], falsy["exception_type"]) == ("SystemExit", "model.Falsy")
    assert good == done("good")
    end(shepherd)


@pytest.mark.parametrize(
    "process",
    [
        "def process(self, job): work(job)",
        "async def process(self, job): work(job)",
        "def process_batch(self, jobs): [work(job) for job in jobs]",
        "slots = 2\n    def process(self, job): work(job)",
    ],
)
def test_a_keyboard_interrupt_fails_the_job_that_raised_it_and_no_other(shepherd, process):
    shepherd.start(
        f"""
def work(job):
    if job.id == "interrupted":
        raise KeyboardInterrupt
    (job.outputs / "output").write_text("done")

class R(Runner):
    {process}
"""
    )
    # Together, so that the others are sent ahead or share a batch.
    shepherd.send(*[shepherd.input(name) for name in ("before", "interrupted", "after")])
    answers = {message["job_id"]: message for message in shepherd.messages(3)}
    assert answers.pop("interrupted")["exception_type"] == "KeyboardInterrupt"
    assert [message["message_type"] for message in answers.values()] == ["DoneMessage"] * 2
    shepherd.send(shepherd.input("later"))
    assert shepherd.message() == done("later")
    shepherd.send(shutdown())
    assert shepherd.exit() == 0
