"""What waits, for the workers and for the shepherd."""

import threading

from shepherd import ATTEMPT, LONG

from shepherd_runner import outbox as module
from shepherd_runner import wire
from shepherd_runner.outbox import Outbox
from shepherd_runner.work import Cancelling, Work


class Watched(Work):
    """Tells when a worker waits for a batch to become full, and when for its first job."""

    def __init__(self):
        super().__init__(lambda connection, message: None, lambda connection, message: None)
        self.filling, self.empty = threading.Event(), threading.Event()

    def _wait(self, timeout):
        (self.empty if timeout is None else self.filling).set()
        super()._wait(timeout)


def test_a_batch_that_is_cancelled_while_it_becomes_full_ends_no_worker():
    for leave in (
        lambda work: work.cancel("a", ATTEMPT) is Cancelling.WAITING,
        lambda work: work.connect(1) is False,
        lambda work: work.take_now() is not None,
    ):
        work = Watched()
        work.connect(1)
        work.push(1, [wire.Input("a", ATTEMPT, "/data", None)])
        taken = []
        worker = threading.Thread(target=lambda: taken.append(work.take_batch(2, 0.2)), daemon=True)
        worker.start()
        assert work.filling.wait(LONG)
        # Its lock is free only while the worker waits.
        assert leave(work)
        assert work.empty.wait(LONG / 10) and not taken
        work.push(1, [wire.Input(id, ATTEMPT, "/data", None) for id in "bc"])
        worker.join(LONG)
        assert [job.id for job in taken[0]] == ["b", "c"]


def test_progress_for_a_shepherd_that_does_not_read_does_not_pile_up(monkeypatch):
    monkeypatch.setattr(module, "_MOST_OFFERED", 10)
    outbox = Outbox(lambda connection: None)

    class Socket:
        connection = 1

        def greet(self):
            """Nobody is there to be asked for a proof."""

    outbox.look(Socket())
    for number in range(100):
        outbox.offer(1, str(number))
    outbox.post(1, "answer")
    assert outbox._pending == [*map(str, range(10)), "answer"]
