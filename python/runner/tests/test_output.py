"""What jobs print: whose it is, that it comes before the answer, and that nothing of it is lost."""

import re
import signal
import threading
from typing import Dict, Tuple

import pytest
from shepherd import ATTEMPT, LONG, Record, Shepherd, cancel, done, ping, shutdown

from shepherd_runner import wire
from shepherd_runner.joblog import MAX_WAITING


def end(shepherd: Shepherd) -> None:
    shepherd.send(shutdown())
    assert shepherd.exit() == 0


def outcomes(shepherd: Shepherd, count: int = 1) -> Tuple[Dict[str, str], Dict[str, Record]]:
    """The logs of so many jobs, and their answers."""
    logs: Dict[str, str] = {}
    answers: Dict[str, Record] = {}
    while len(answers) < count:
        message = shepherd.message()
        job_id = message["job_id"]
        assert job_id not in answers, "something came after the answer"
        if message["message_type"] == "LogMessage":
            assert set(message) == {"job_id", "attempt", "text", "message_type"}
            assert message["attempt"] == ATTEMPT and len(message["text"].encode()) <= wire.MAX_LOG
            logs[job_id] = logs.get(job_id, "") + message["text"]
        else:
            answers[job_id] = message
    return logs, answers


def run(shepherd: Shepherd, *ids: str) -> Dict[str, str]:
    shepherd.send(*(shepherd.input(id) for id in ids))
    logs, answers = outcomes(shepherd, len(ids))
    assert answers == {id: done(id) for id in ids}
    return logs


EVERYTHING = """
import ctypes, logging, subprocess

class R(Runner):
    def setup(self, config):
        print("loading")
        self.thread = threading.Thread(target=self.noise, daemon=True)
        self.go, self.went = threading.Event(), threading.Event()
        self.thread.start()

    def noise(self):
        self.go.wait()
        print("a thread of the model")
        self.went.set()

    def process(self, job):
        if job.id == "silent":
            return
        print("python", job.id)
        os.write(1, b"descriptor\\n")
        logging.getLogger("model").warning("logged")
        subprocess.run(["sh", "-c", "echo child; echo error >&2"], check=True)
        print("python again")
        ctypes.CDLL(None).puts(b"library")
        self.go.set()
        self.went.wait()
        child = os.fork()
        if child == 0:
            print("forked")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
        sys.stdout.buffer.write("žluť".encode()[:-1])
        os.write(2, "羊\\n".encode())
        sys.stdout.write("no end")
"""


def test_with_one_slot_all_that_the_process_writes_is_the_jobs(shepherd):
    shepherd.start(EVERYTHING)
    logs = run(shepherd, "silent", "job")
    assert set(logs) == {"job"}
    lines = logs["job"].splitlines()
    for line in ("python job", "descriptor", "child", "error", "python again", "library", "a thread of the model"):
        assert lines.count(line) == 1, lines
    assert lines.count("forked") == 1 and any(line.endswith("WARNING model: logged") for line in lines)
    # What a child wrote came before what was printed afterwards.
    order = [lines.index(line) for line in ("python job", "descriptor", "child", "python again", "forked")]
    assert order == sorted(order)
    # Half a letter is one that cannot be read, and breaks nothing else.
    assert "žlu" in logs["job"] and "羊\n" in logs["job"] and logs["job"].endswith("\ufffdno end")
    end(shepherd)


def test_the_processes_own_streams_have_all_of_it_in_order(shepherd):
    shepherd.start(
        """
        import subprocess
        class R(Runner):
            def process(self, job):
                for step in range(20):
                    print("print", step)
                    subprocess.run(["echo", f"child {step}"])
                    os.write(1, f"write {step}\\n".encode())
            def teardown(self):
                os.system("echo torn down")
        """
    )
    logs = run(shepherd, "one", "two")
    end(shepherd)
    wanted = [f"{what} {step}" for step in range(20) for what in ("print", "child", "write")]
    assert logs["one"].splitlines() == logs["two"].splitlines() == wanted
    assert shepherd.printed().splitlines() == [*wanted, *wanted, "torn down"]


def test_what_a_job_prints_comes_while_it_runs(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                print("first")
                while not (job.inputs / "go").exists():
                    time.sleep(0.005)
                print("second")
        """
    )
    shepherd.send(shepherd.input("one"))
    message = shepherd.message()
    assert (message["job_id"], message["text"]) == ("one", "first\n")
    (shepherd.data / "one" / "inputs" / "go").touch()
    assert outcomes(shepherd) == ({"one": "second\n"}, {"one": done("one")})
    end(shepherd)


def test_a_failed_and_a_cancelled_job_have_logs_too(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                print("of", job.id, end="")
                if job.id == "fails":
                    raise ValueError("bad")
                while True:
                    job.raise_if_cancelled()
                    time.sleep(0.005)
        """
    )
    shepherd.send(shepherd.input("fails"), shepherd.input("cancelled"))
    logs, answers = outcomes(shepherd)
    assert (logs, answers["fails"]["message"]) == ({"fails": "of fails"}, "bad")
    shepherd.send(cancel("cancelled"))
    logs, answers = outcomes(shepherd)
    assert (logs, answers["cancelled"]["exception_type"]) == ({"cancelled": "of cancelled"}, "Cancelled")
    end(shepherd)


def test_slots_print_each_for_its_own_job(shepherd):
    shepherd.start(
        """
        import logging
        from concurrent.futures import ThreadPoolExecutor
        class R(Runner):
            slots = 3
            def setup(self, config):
                self.barrier = threading.Barrier(3)
                self.pool = ThreadPoolExecutor(1)
                # Its thread is nobody's, and what is given to it is somebody's.
                self.pool.submit(print, "the pool").result()
            def process(self, job):
                for step in range(50):
                    sys.stdout.write(f"{job.id} ")
                    self.barrier.wait()
                    print(step, "of", 50)
                logging.getLogger().error("logged by %s", job.id)
                thread = threading.Thread(target=print, args=("thread of", job.id))
                thread.start()
                thread.join()
                self.pool.submit(print, "pool for", job.id).result()
                os.write(2, f"descriptor {job.id}\\n".encode())
                print("no end", end="")
        """
    )
    logs = run(shepherd, "a", "b", "c")
    for id in "abc":
        lines = logs[id].splitlines()
        assert lines[:50] == [f"{id} {step} of 50" for step in range(50)]
        assert lines[50].endswith(f"logged by {id}") and lines[51:] == [f"thread of {id}", f"pool for {id}", "no end"]
    end(shepherd)
    printed = shepherd.printed()
    # Whole lines, of whomever.
    for id in "abc":
        for line in [*(f"{id} {step} of 50" for step in range(50)), f"descriptor {id}", f"pool for {id}"]:
            assert len(re.findall(f"^(?:no end)*{line}$", printed, re.MULTILINE)) == 1, line


def test_tasks_print_each_for_its_own_job(shepherd):
    shepherd.start(
        """
        class R(Runner):
            slots = 3
            async def setup(self, config):
                self.count, self.all = 0, asyncio.Event()
            async def process(self, job):
                print("begin", end=" ")
                self.count += 1
                if self.count == 3:
                    self.all.set()
                await self.all.wait()
                await asyncio.create_task(self.inner(job))
                await asyncio.get_running_loop().run_in_executor(None, print, "pool for", job.id)
            async def inner(self, job):
                print(job.id)
        """
    )
    assert run(shepherd, "a", "b", "c") == {id: f"begin {id}\npool for {id}\n" for id in "abc"}
    end(shepherd)
    wanted = sorted(f"{what} {id}" for what in ("begin", "pool for") for id in "abc")
    assert sorted(shepherd.printed().splitlines()) == wanted


def test_each_job_of_a_batch_gets_what_the_batch_prints(shepherd):
    shepherd.start(
        """
        import subprocess
        class R(Runner):
            max_batch = 2
            max_wait = 1000.0
            def process_batch(self, jobs):
                print("batch of", len(jobs))
                subprocess.run(["echo", "child"])
                if len(jobs) > 1 and jobs[0].id == "bad":
                    raise ValueError
        """
    )
    assert run(shepherd, "a", "b") == {id: "batch of 2\nchild\n" for id in "ab"}
    logs = run(shepherd, "bad", "good")
    assert logs == {id: "batch of 2\nchild\nbatch of 1\nchild\n" for id in ("bad", "good")}
    end(shepherd)


@pytest.mark.parametrize("how", ["print(text)", "os.write(1, text.encode() + b'\\n')"])
def test_a_job_that_prints_without_end_is_bounded_and_its_end_is_kept(shepherd, how):
    shepherd.start(
        f"""
        class R(Runner):
            def process(self, job):
                for number in range(300):
                    text = f"{{number:>099999}}"
                    {how}
                print("the end, žluť")
        """
    )
    printed = []
    reader = threading.Thread(target=lambda: printed.append(shepherd.process.stdout.read()))
    reader.start()
    shepherd.send(shepherd.input("one"), ping(1))
    kinds = []
    log = ""
    while "DoneMessage" not in kinds:
        message = shepherd.message()
        kinds.append(message["message_type"])
        log += message.get("text", "")
    assert "PongMessage" in kinds
    assert log.endswith("the end, žluť\n") and f"{299:>099999}" in log
    # Of 30 MB; how much went before depends on how fast both were.
    left_out = sum(map(int, re.findall(r"\[(\d+) bytes were left out here\]\n", log)))
    assert left_out > 0
    text = re.sub(r"\n?\[\d+ bytes were left out here\]\n", "", log)
    assert abs(len(text.encode()) + left_out - (300 * 100_000 + len("the end, žluť\n".encode()))) <= 300
    end(shepherd)
    reader.join()
    assert printed[0].splitlines() == [*(f"{number:>099999}" for number in range(300)), "the end, žluť"]
    assert MAX_WAITING < 1 << 20


def test_output_that_nobody_reads_holds_up_the_job_alone(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                (job.outputs / "began").touch()
                print("x" * 1_000_000)
                os.write(2, b"#" * 1_000_000)
        """
    )
    shepherd.send(shepherd.input("one"))
    shepherd.wait_for("one/outputs/began")
    for nonce in range(3):
        shepherd.send(ping(nonce), {"message_type": "?"})
        message = shepherd.message()
        while message["message_type"] == "LogMessage":
            message = shepherd.message()
        assert message == {"nonce": nonce, "message_type": "PongMessage"}
    texts = {}

    def read(name):
        texts[name] = getattr(shepherd.process, name).read()

    readers = [threading.Thread(target=read, args=(name,)) for name in ("stdout", "stderr")]
    for reader in readers:
        reader.start()
    _, answers = outcomes(shepherd)
    assert answers == {"one": done("one")}
    end(shepherd)
    for reader in readers:
        reader.join()
    assert texts["stdout"].count("x") == texts["stderr"].count("#") == 1_000_000


def test_a_runner_whose_output_nobody_reads_can_be_ended(shepherd):
    shepherd.start(
        """
        class R(Runner):
            def process(self, job):
                (job.outputs / "began").touch()
                print("x" * 1_000_000)
        """
    )
    shepherd.send(shepherd.input("one"))
    shepherd.wait_for("one/outputs/began")
    shepherd.send(shutdown(0))
    assert shepherd.exit() == 1


@pytest.mark.parametrize(
    "death, code",
    [
        ("ctypes.string_at(0)", -signal.SIGSEGV),
        ("os.abort()", -signal.SIGABRT),
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
)
def test_what_was_printed_before_a_crash_is_not_lost(shepherd, death, code):
    shepherd.start(
        f"""
        import ctypes, faulthandler
        class R(Runner):
            def process(self, job):
                print("last words")
                {death}
        """
    )
    shepherd.send(shepherd.input("one"))
    assert shepherd.exit() == code
    printed = shepherd.printed()
    assert "last words\n" in printed
    assert ("Current thread" in printed and "in process" in printed) == (code in (-signal.SIGSEGV, -signal.SIGABRT))


def test_children_that_outlive_their_job_go_on_writing_but_to_no_other_jobs_log(shepherd):
    shepherd.start(
        """
        import multiprocessing, subprocess
        class R(Runner):
            def process(self, job):
                if job.id == "one":
                    self.child = subprocess.Popen(["sh", "-c", "read line; echo $line"], stdin=subprocess.PIPE)
                    self.worker = multiprocessing.get_context("fork").Pool(1)
                    self.worker.apply(print, ("forked early", ))
                    # Nobody's child, once its parent was waited for.
                    os.system("(until [ -e go ]; do sleep 0.01; done; echo orphan of one; touch gone) &")
                elif job.id == "two":
                    self.child.communicate(b"child of one\\n")
                    self.worker.apply(print, ("forked late",))
                    open("go", "w").close()
                    while not os.path.exists("gone"):
                        time.sleep(0.01)
                    subprocess.run(["echo", "child of two"])
                    os.write(1, b"two itself\\n")
                else:
                    print(len(os.listdir("/proc/self/fd")))
                    self.worker.apply(print, ("forked late",))
        """
    )
    assert run(shepherd, "one") == {"one": "forked early\n"}
    assert run(shepherd, "two") == {"two": "child of two\ntwo itself\n"}
    # Pipes that nobody writes to are closed.
    counts = [int(run(shepherd, name)[name]) for name in ("three", "four", "five", "six", "seven")]
    assert max(counts[2:]) <= counts[1] + 2, counts
    end(shepherd)
    printed = shepherd.printed()
    for line in ("child of one", "forked late", "orphan of one"):
        assert line in printed


@pytest.mark.parametrize("slots", [1, 2])
def test_threads_that_outlive_their_job_print_to_no_other_jobs_log(shepherd, slots):
    shepherd.start(
        f"""
        from concurrent.futures import ThreadPoolExecutor
        class R(Runner):
            slots = {slots}
            pool = ThreadPoolExecutor(1)
            go, gone = threading.Event(), threading.Event()
            def late(self):
                self.go.wait()
                print("late", flush=True)
                sys.stdout.buffer.write(b"later\\n")
                self.gone.set()
            def process(self, job):
                if job.id == "one":
                    print("one", end="")
                    threading.Thread(target=self.late, daemon=True).start()
                else:
                    self.go.set()
                    self.gone.wait()
                    self.pool.submit(print, "in a pool of", job.id).result()
        """
    )
    assert run(shepherd, "one") == {"one": "one"}
    assert run(shepherd, "two") == {"two": "in a pool of two\n"}
    end(shepherd)
    printed = shepherd.printed()
    assert "late\nlater\n" in printed


def test_a_model_may_do_what_it_likes_with_its_streams(shepherd):
    shepherd.start(
        """
        import contextlib, io
        class R(Runner):
            def process(self, job):
                if job.id == "redirects":
                    with contextlib.redirect_stdout(io.StringIO()):
                        print("hidden")
                    print("seen")
                    saved = os.dup(1)
                    null = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(null, 1)
                    os.system("echo hidden")
                    os.dup2(saved, 1)
                    os.system("echo seen too")
                elif job.id == "wraps":
                    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, "utf-8", line_buffering=True)
                    print("wrapped")
                elif job.id == "closes":
                    sys.stdout.close()
                    os.close(1)
                    os.write(2, b"still\\n")
        """
    )
    logs = run(shepherd, "redirects", "wraps", "closes", "none")
    assert logs == {"redirects": "seen\nseen too\n", "wraps": "wrapped\n", "closes": "still\n"}
    end(shepherd)


def test_a_runner_without_logs_leaves_its_streams_alone(shepherd):
    ready = shepherd.start(
        """
        class R(Runner):
            logs = False
            def process(self, job):
                print("line of", job.id)
                (job.outputs / "output").write_text(os.readlink("/proc/self/fd/1"))
            def setup(self, config):
                self.stdout = os.readlink("/proc/self/fd/1")
            def teardown(self):
                assert os.readlink("/proc/self/fd/1") == self.stdout
        """
    )
    assert "logs" not in ready
    assert run(shepherd, "one") == {}
    end(shepherd)
    assert shepherd.printed() == "line of one\n"


def test_a_program_has_its_streams_back_after_it_served(shepherd):
    (shepherd.directory / "program.py").write_text(
        "import logging, os, sys\n"
        "logging.basicConfig()\n"
        "from shepherd_runner import Runner, serve\n"
        "class R(Runner):\n"
        "    def process(self, job): logging.warning('of %s', job.id)\n"
        "before = [os.fstat(fd).st_ino for fd in (1, 2)]\n"
        "serve(R())\n"
        "assert before == [os.fstat(fd).st_ino for fd in (1, 2)]\n"
        "print('after')\n"
        "os.system('echo child')\n"
    )
    shepherd.execute("program.py")
    shepherd.ready()
    assert run(shepherd, "one") == {"one": "WARNING:root:of one\n"}
    end(shepherd)
    assert shepherd.process.communicate(timeout=LONG) == ("after\nchild\n", "WARNING:root:of one\n")


def test_what_objects_and_handlers_print_in_the_middle_of_printing_holds_nothing_up(shepherd):
    shepherd.start(
        """
        import gc, signal
        class Loud:
            def __init__(self):
                self.me = self
            def __del__(self):
                print("end of an object")
        class R(Runner):
            def setup(self, config):
                gc.set_threshold(1)
                signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
            def process(self, job):
                signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
                for step in range(300):
                    Loud()
                    print("step", step)
                    os.write(1, b"raw\\n")
                signal.setitimer(signal.ITIMER_REAL, 0)
        """
    )
    logs = run(shepherd, "one")
    # A line may be interrupted, but not lost.
    assert logs["one"].count("step") == 300
    assert logs["one"].count("raw\n") == 300 and "end of an object" in logs["one"]
    end(shepherd)
