"""A runner at work.

::

      reader thread ---- jobs ----> Work ---- next ----> the main thread: process()
        |                            ^                        | answers
        v                            | shutdown               v
      socket <---- Outbox <----------+------------------------+
                   (its thread: connections, pongs, progress)

The main thread does the work, so that signal handlers, CUDA contexts and whatever else cares for threads are at home
in it; only a runner with several slots has threads for its jobs. Everything that must not wait for a job is on other
threads. They need the interpreter's lock for it: a model that holds it for longer than the sheep's
``heartbeat_timeout``, in a library's function that never lets go of it, counts as dead.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import traceback
from typing import List, Optional

from . import shutdown, wire
from .config import Config
from .errors import ErrorTexts, SettingsError
from .options import Options
from .outbox import Outbox
from .output import OUTPUT, flush
from .runner import Runner
from .tasks import Tasks, is_async
from .transport import NONE, RunnerSocket
from .work import Cancelling, Work
from .workers import Workers

#: How long the last answers may take to leave, in seconds.
_FLUSH = 1.0


def serve(runner: Runner, config: Optional[Config] = None, options: Optional[Options] = None) -> None:
    """Serves jobs until the shepherd or a signal (SIGTERM, SIGINT) says to stop, or the program that started this
    one and the connection to the shepherd are both gone.

    Call it on the main thread; elsewhere signals are not heard. When the time to stop is over and a job still runs,
    the process exits with code 1; a second signal makes it exit at once. A program should end soon after this
    returned: only then the shepherd sees that the runner is gone, and the two signals do nothing any more.

    Raises what :meth:`Runner.setup` raises, and :class:`SettingsError` or :class:`~.transport.ListenError` when it
    cannot begin.
    """
    # Not `or`: a configuration that is empty is false.
    config = Config() if config is None else config
    _Service(runner, config, options or Options.from_env()).run()


class _Service:
    def __init__(self, runner: Runner, config: Config, options: Options) -> None:
        self._runner = runner
        self._config = config
        self._options = options
        self._batches = type(runner).process_batch is not Runner.process_batch
        self._outbox = Outbox(self._on_connection)
        self._work = Work(self._outbox.offer, self._outbox.post)
        self._connected = False
        # Before anybody can know that the runner is there, and go away.
        self._parent = os.getppid()

    def run(self) -> None:
        if self._batches:
            process_batch = self._runner.process_batch
            if inspect.iscoroutinefunction(process_batch) or inspect.isasyncgenfunction(process_batch):
                raise SettingsError("`process_batch` cannot be `async`")
            if inspect.isgeneratorfunction(process_batch):
                raise SettingsError("`process_batch` cannot be a generator")
        OUTPUT.install()
        socket = RunnerSocket(self._options.listen, self._outbox.stir, self._options.token)
        if threading.current_thread() is threading.main_thread():
            shutdown.Signals(self._work, self._options.grace)
        # Both go on to the process's end.
        for name, target in [("shepherd-reader", self._read), ("shepherd-outbox", self._outbox.run)]:
            threading.Thread(target=target, args=(socket,), name=name, daemon=True).start()
        try:
            self._run_model()
        finally:
            # Until here a shepherd that reads nothing cannot keep a runner from ending.
            self._outbox.flush()
            socket.flush(_FLUSH)
            OUTPUT.end()
            self._work.finish()

    def _run_model(self) -> None:
        runner = self._runner
        if is_async(runner) and not self._batches:
            tasks = Tasks(runner, self._work, self._outbox)
            asyncio.run(tasks.run(self._config, self._announce))
        else:
            runner.setup(self._config)
            self._announce()
            self._run_workers()
        try:
            runner.teardown()
        except Exception:
            traceback.print_exc()
        flush()

    def _run_workers(self) -> None:
        workers = Workers(self._runner, self._work, self._outbox)
        loop = workers.run_batches if self._batches else workers.run_jobs
        if self._runner.slots <= 1:
            loop()
            return
        # Daemons, because a job may have to be left; they are waited for all the same.
        threads = [
            threading.Thread(target=loop, name=f"shepherd-slot-{number}", daemon=True)
            for number in range(self._runner.slots)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # What the shepherd is told about the runner.

    def _ready(self) -> str:
        runner = self._runner
        slots = max(1, int(runner.slots)) * (max(1, int(runner.max_batch)) if self._batches else 1)
        ahead = max(0, int(runner.ahead))
        name = self._options.name or type(runner).__qualname__
        return wire.ready(name, slots, ahead, min(wire.MAX_BATCH, max(1, slots + ahead)), runner.logs)

    def _announce(self) -> None:
        if self._runner.logs:
            OUTPUT.begin(self._outbox, alone=self._runner.slots <= 1)
        connection = self._work.set_ready()
        if connection != NONE:
            self._outbox.push(connection, self._ready(), hold=False)

    def _on_connection(self, connection: int) -> Optional[str]:
        self._connected = connection != NONE
        return self._ready() if self._work.connect(connection) else None

    # What the shepherd says.

    def _read(self, socket: RunnerSocket) -> None:
        while True:
            frame = socket.recv()
            if frame is not None:
                # A message may be here before its connection's beginning was taken note of.
                self._outbox.look(socket)
                self._take(frame.connection, wire.decode(frame.data))
            elif not self._connected and os.getppid() != self._parent:
                # Where no parent-death signal was set, an orphan ends here.
                shutdown.begin(self._work, self._options.grace)

    def _take(self, connection: int, messages: List[wire.Message]) -> None:
        inputs: List[wire.Input] = []
        for message in messages:
            if isinstance(message, wire.Input):
                inputs.append(message)
                continue
            # In their order: a cancellation may follow its job in one frame.
            self._push(connection, inputs)
            inputs = []
            if isinstance(message, wire.Ping):
                self._outbox.post(connection, wire.pong(message.nonce))
            elif isinstance(message, wire.Cancel):
                if self._work.cancel(message.job_id, message.attempt) is Cancelling.WAITING:
                    self._outbox.post(connection, wire.cancelled(message.job_id, message.attempt))
            elif isinstance(message, wire.Shutdown):
                shutdown.begin(self._work, message.grace)
            else:
                OUTPUT.say(f"shepherd-runner: ignored a message: {message.reason}")
        self._push(connection, inputs)

    def _push(self, connection: int, inputs: List[wire.Input]) -> None:
        if not inputs:
            return
        for refused in self._work.push(connection, inputs):
            texts = ErrorTexts("more jobs were sent ahead than the runner takes", "", "")
            self._outbox.post(connection, wire.error(refused.job_id, refused.attempt, texts))
