"""A log that is read over several connections: each begins at the log's beginning."""

import codecs

#: How much is remembered to recognize the log by. Past it, only the length counts.
_REMEMBERED = 1024 * 1024


class Log:
    """Gives of each connection what the ones before it did not.

    A connection that begins with something else is of another attempt, or of a log that has lost its beginning: it is
    given whole.
    """

    def __init__(self) -> None:
        self._seen = bytearray()
        self._length = 0
        #: Where this connection is.
        self._at = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def begin(self) -> None:
        """A new connection."""
        self._at = 0

    def feed(self, piece: bytes) -> str:
        """What is new in the next piece."""
        known = bytes(self._seen[self._at : self._at + len(piece)])
        if not piece.startswith(known):
            # Up to here it was the same, and was held back.
            piece = bytes(self._seen[: self._at]) + piece
            self._seen.clear()
            self._length = self._at = 0
            self._decoder.reset()
        fresh = piece[max(0, self._length - self._at) :]
        self._at += len(piece)
        self._length = max(self._length, self._at)
        self._seen += fresh[: max(0, _REMEMBERED - len(self._seen))]
        return self._decoder.decode(fresh)

    def end(self) -> str:
        """What is left of a letter that broke off."""
        return self._decoder.decode(b"", True)
