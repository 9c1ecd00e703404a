"""The first shepherd's messages, as its ``shepherd.comm`` has them: for models that send and receive by themselves.

Runners of this package speak :mod:`shepherd_runner.wire` and need none of it.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Dict, Mapping, Optional, Sequence, Tuple, Type

#: ``zmq.ROUTER`` and ``zmq.NOBLOCK``: whoever has a socket of pyzmq has pyzmq, and nobody else needs it.
_ROUTER = 6
_NOBLOCK = 1


class MessageError(ValueError):
    """A message could not be sent or received."""


class UnexpectedMessageTypeError(MessageError):
    """The message received is not one of those expected."""


class Message:
    """A message of the ZeroMQ wire, made of a mapping such as ``{"job_id": "my-job"}``."""

    #: Names of the fields besides ``identity`` and ``job_id``.
    _more: ClassVar[Tuple[str, ...]] = ()
    #: The peer of a ROUTER socket; bytes once received.
    identity: Any
    #: The job's id.
    job_id: Optional[str]

    def __init__(self, values: Optional[Mapping[str, Any]] = None) -> None:
        given = dict(values or {})
        given.pop("message_type", None)
        self.identity = given.pop("identity", "")
        for name in ("job_id", *self._more):
            setattr(self, name, given.pop(name, None))
        if given:
            raise ValueError(f"{self.message_type} has no field `{sorted(given)[0]}`")

    @property
    def message_type(self) -> str:
        """The name of the class."""
        return type(self).__name__

    def to_primitive(self) -> Dict[str, Any]:
        """What is sent, as a dictionary. Identities are not sent: they are frames of their own."""
        fields = {name: getattr(self, name) for name in ("job_id", *self._more)}
        return {"identity": "", **fields, "message_type": self.message_type}


class InputMessage(Message):
    """A job to work on, below the directory ``io_data_root``."""

    _more = ("io_data_root",)
    io_data_root: Optional[str]


class DoneMessage(Message):
    """The job is done."""


class ErrorMessage(Message):
    """The job failed."""

    _more = ("message", "exception_type", "exception_traceback")
    message: Optional[str]
    exception_type: Optional[str]
    exception_traceback: Optional[str]


_TYPES: Dict[str, Type[Message]] = {kind.__name__: kind for kind in (InputMessage, DoneMessage, ErrorMessage)}


def encode_message(message: Message) -> bytes:
    """The bytes of one frame."""
    return json.dumps({"message": message.to_primitive()}).encode()


def decode_message(value: bytes) -> Message:
    """The message in one frame. Keys that are not known are ignored. Raises :class:`ValueError` for anything else."""
    frame = json.loads(value.decode())
    record = frame.get("message") if isinstance(frame, dict) else None
    if not isinstance(record, dict):
        raise ValueError("a frame without a message")
    kind = _TYPES.get(str(record.get("message_type")))
    if kind is None:
        raise ValueError(f"unknown message type `{record.get('message_type')}`")
    return kind({name: record[name] for name in ("job_id", *kind._more) if name in record})


class Messenger:
    """Sends and receives through sockets of ``zmq.asyncio``."""

    @staticmethod
    async def send(socket: Any, message: Message, response_to: Optional[Message] = None) -> None:
        """Sends a message, on a ROUTER socket to whoever sent ``response_to``."""
        if not isinstance(message, Message):
            raise TypeError(f"`{type(message)}` is not a message")
        frames = [encode_message(message)]
        if response_to is not None and response_to.identity:
            frames.insert(0, response_to.identity)
        try:
            await socket.send_multipart(frames)
        except Exception as error:
            raise MessageError("Failed to send message") from error

    @staticmethod
    async def recv(
        socket: Any, expected_message_types: Optional[Sequence[type]] = None, noblock: bool = False
    ) -> Message:
        """The next message, which must be of one of these types."""
        try:
            frames = await socket.recv_multipart(flags=_NOBLOCK if noblock else 0)
        except Exception as error:
            raise MessageError("Failed to receive message") from error
        identity = frames[0] if socket.type == _ROUTER else ""
        message = decode_message(frames[-1])
        message.identity = identity
        if expected_message_types is not None and type(message) not in expected_message_types:
            raise UnexpectedMessageTypeError(
                f"Unexpected message type `{message.message_type}`. Expected message types are "
                f"{[kind.__name__ for kind in expected_message_types]}."
            )
        return message
