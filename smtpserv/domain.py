"""Which domain names are the same: in any case, and as A-labels or U-labels (RFC 5890)."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

try:
    import idna
except ImportError:  # only what is ASCII matches then
    idna = None  # type: ignore[assignment]

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")


def canonical(domain: str) -> str | None:
    """The one form of a domain name that is compared: A-labels in lower case, without a dot at the end.

    Look-alikes stay apart: only letters that IDNA 2008 permits (RFC 5892) make an A-label, and no letter
    outside ASCII stands for one inside.

    :return: None for what is no domain name, such as an address literal.
    """
    labels = [_a_label(label) for label in domain.removesuffix(".").split(".")]
    return None if None in labels else ".".join(filter(None, labels))


def _a_label(label: str) -> str | None:
    if label.isascii():
        label = label.lower()
        return label if _LABEL.fullmatch(label) else None
    if idna is None:
        return None
    try:
        encoded = idna.alabel(unicodedata.normalize("NFC", label.lower())).decode("ascii")
    except UnicodeError:
        return None
    # The Kelvin sign is a k in lower case; what ends as ASCII only posed as something else.
    return encoded if encoded.startswith("xn--") else None


@dataclass(frozen=True, slots=True)
class Domains:
    """A set of domain names, without those below them; ``domain in domains`` takes any of their forms."""

    names: frozenset[str] = frozenset()

    def __contains__(self, domain: str) -> bool:
        return canonical(domain) in self.names

    @classmethod
    def parse(cls, written: str) -> "Domains":
        """Read a list such as ``example.com,example.org``; nothing is no domain.

        :raises ValueError: for what is no domain name.
        """
        names = {word: canonical(word) for part in written.split(",") if (word := part.strip())}
        wrong = [word for word, name in names.items() if name is None]
        if wrong:
            raise ValueError(f"a list of domain names ({wrong[0]})")
        return cls(frozenset(filter(None, names.values())))
