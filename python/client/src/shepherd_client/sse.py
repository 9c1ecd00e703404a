"""Server-sent events, as far as the shepherd uses them."""

from typing import Iterator, List, NamedTuple


class Frame(NamedTuple):
    id: str
    event: str
    data: str


class Parser:
    """Takes the pieces of a stream as they come and gives the events that are whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._id = ""
        self._event = ""
        self._data: List[str] = []

    def feed(self, piece: bytes) -> Iterator[Frame]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            text = line.rstrip(b"\r").decode("utf-8", "replace")
            if text:
                self._field(text)
                continue
            if self._data:
                yield Frame(self._id, self._event, "\n".join(self._data))
            self._event, self._data = "", []

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "id":
            self._id = value
        elif name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
