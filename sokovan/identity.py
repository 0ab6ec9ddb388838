"""Where ids and tokens come from."""

import random

from sokovan.domain.sessions import KernelId, SessionId

_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
"""No 0, 1, i, l, o: ids are read aloud and typed."""
ID_LENGTH = 12
_UNFAIR = bytes(range(256 - 256 % len(_ALPHABET), 256))
"""Bytes that would make some characters more likely than others."""
_LETTER_OF = "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256)).encode()


class IdSource:
    """Mints names. Seeded in tests and the simulator, from the operating system otherwise.

    Twelve characters of 31 carry 59 bits: with a million sessions, the chance that any two ids meet
    is below one in a million, and the store refuses the second.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._is_seeded = rng is not None
        self._rng = rng or random.SystemRandom()

    def session_id(self) -> SessionId:
        """Return a new session id."""
        return SessionId(self._name(ID_LENGTH))

    def session_ids(self, count: int) -> list[SessionId]:
        """Return many new session ids, much faster than one by one."""
        text = self._letters(count * ID_LENGTH)
        return [SessionId(text[at : at + ID_LENGTH]) for at in range(0, len(text), ID_LENGTH)]

    def kernel_id(self, session_id: SessionId, index: int) -> KernelId:
        """Return the id of a session's kernel: readable, and unique because the session's is."""
        return KernelId(f"{session_id}.{index}")

    def token(self) -> str:
        """Return a new token, the name of one attempt to run a kernel."""
        return self._name(20)

    def _name(self, length: int) -> str:
        if self._is_seeded:  # as always, so that a seed goes on meaning the same
            return "".join(self._rng.choices(_ALPHABET, k=length))
        return self._letters(length)

    def _letters(self, count: int) -> str:
        found = ""
        while missing := count - len(found):
            found += self._rng.randbytes(missing).translate(_LETTER_OF, _UNFAIR).decode()
        return found
