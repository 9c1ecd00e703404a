"""How a shepherd and a runner prove to each other that they belong to one launch.

Both know the launch's token, a secret in the runner's environment. The runner asks with a random challenge of its
own; the shepherd answers with his challenge and a proof, and the runner with its proof. A proof is the HMAC-SHA256 of
the side, the runner's challenge and the shepherd's, so that it is of use on one connection only. The Rust crate
``shepherd-protocol`` says what this keeps off, and what not.
"""

from __future__ import annotations

import hmac
import json
import secrets
from typing import Any, Optional

_MAX_CHALLENGE = 128


class Challenge:
    """What the runner asks of whoever connects."""

    def __init__(self, token: str, text: Optional[str] = None) -> None:
        """``text`` is given by tests only; each connection has its own."""
        self._token = token.encode()
        self._text = secrets.token_hex(16) if text is None else text

    @property
    def frame(self) -> bytes:
        """The frame that asks."""
        return _frame({"challenge": self._text, "message_type": "ChallengeMessage"})

    def answer(self, frame: bytes) -> Optional[bytes]:
        """The frame that proves the runner to a shepherd that sent ``frame``; None where that proves nothing."""
        message = _message(frame)
        theirs, proof = message.get("challenge"), message.get("proof")
        if message.get("message_type") != "ProofMessage" or not isinstance(theirs, str) or not isinstance(proof, str):
            return None
        wanted = self._proof("shepherd", theirs).encode()
        if len(theirs) > _MAX_CHALLENGE or not hmac.compare_digest(proof.encode("utf-8", "replace"), wanted):
            return None
        return _frame({"proof": self._proof("runner", theirs), "message_type": "ProofMessage"})

    def _proof(self, side: str, theirs: str) -> str:
        text = f"{side}\n{self._text}\n{theirs}".encode("utf-8", "replace")
        return hmac.new(self._token, text, "sha256").hexdigest()


def _frame(message: Any) -> bytes:
    return json.dumps({"message": message}, separators=(",", ":")).encode("ascii")


def _message(frame: bytes) -> Any:
    try:
        message = json.loads(frame).get("message")
    except (ValueError, RecursionError, AttributeError):
        return {}
    return message if isinstance(message, dict) else {}
