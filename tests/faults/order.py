# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the paced engine is asked to do, as words in the last user message.

    tokens=300 pace=5 delay=0.2 seed=s1 fail=cut@20 times=1

Token N of the answer is the text `SEED.N `, so that a test knows the whole answer beforehand and
sees at each place what is missing or twice. Everything has a default and other words are ignored.
"""

import re
from dataclasses import dataclass, fields

_WORD = re.compile(r"(\w+)=(\S+)")
_FAIL = re.compile(r"(stall|cut|garbage|reset|status)@(\d+)")


@dataclass(frozen=True, slots=True)
class Order:
    """One answer.

    `fail` is one of

    - `stall@N`: after N tokens nothing comes any more, and the connection stays open;
    - `cut@N`: after N tokens the connection closes in order, without an end mark;
    - `reset@N`: after N tokens the connection is reset;
    - `garbage@N`: after N tokens comes an event that is no JSON, then the end mark;
    - `status@N`: the answer is an error with HTTP status N.
    """

    tokens: int = 20
    pace: float = 0.0
    """Tokens a second; 0 is as fast as possible."""
    delay: float = 0.0
    """Seconds before the first token, as a prompt takes to be read."""
    seed: str = "t"
    fail: str = ""
    times: int = 0
    """How many requests of this seed fail; 0: all of them."""

    @classmethod
    def parse(cls, prompt: str) -> "Order":
        """Return the order in `prompt`."""
        found = dict(_WORD.findall(prompt))
        given = {each.name: found[each.name] for each in fields(cls) if each.name in found}
        return cls(
            tokens=int(given.get("tokens", cls().tokens)),
            pace=float(given.get("pace", cls().pace)),
            delay=float(given.get("delay", cls().delay)),
            seed=given.get("seed", cls().seed),
            fail=given.get("fail", ""),
            times=int(given.get("times", 0)),
        )

    def prompt(self) -> str:
        """Return the words that ask for this."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return " ".join(f"{name}={value}" for name, value in given.items() if value != "")

    def token(self, number: int) -> str:
        """Return the text of one token, from 0."""
        return f"{self.seed}.{number} "

    def text(self, tokens: int | None = None) -> str:
        """Return the whole answer, or its first `tokens`."""
        count = self.tokens if tokens is None else min(tokens, self.tokens)
        return "".join(map(self.token, range(count)))

    def after(self, beginning: str) -> int | None:
        """Return the token that follows `beginning`; `None` if the answer does not begin so."""
        count = beginning.count(" ")
        return count if count <= self.tokens and self.text(count) == beginning else None

    @property
    def failure(self) -> tuple[str, int] | None:
        """How it fails, and after which token or with which status."""
        found = _FAIL.fullmatch(self.fail)
        return (found[1], int(found[2])) if found else None
