"""
What the server reports about itself to clients that ask for it. By default this is nothing, as it mostly helps
attackers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from responder.dns.rrset import CLASS_CH, RRset, RRType, txt_rdata
from responder.dns.wire import Answer, Rcode, compile_answer
from responder.names import Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """
    The texts that the server reports. A question for an empty one is refused.

    *nsid* is for the EDNS option of that name (RFC 5001). In class CHAOS (RFC 4892), *version* is the answer for
    `version.bind` and `version.server`, and *hostname* the one for `hostname.bind` and `id.server`.
    """

    nsid: str = ""
    version: str = ""
    hostname: str = ""

    def answers(self, count: list[int]) -> Mapping[tuple[bytes, int], Answer]:
        """The answers of class CHAOS by name (wire form in lower case) and type. Uses are counted in *count*."""
        texts = {
            "version.bind": self.version,
            "version.server": self.version,
            "hostname.bind": self.hostname,
            "id.server": self.hostname,
        }
        return {
            (Name.parse(name).wire, int(RRType.TXT)): _answer(Name.parse(name), text, count)
            for name, text in texts.items()
            if text
        }


def _answer(name: Name, text: str, count: list[int]) -> Answer:
    rrset = RRset(name, RRType.TXT, 0, (txt_rdata(text),))
    return compile_answer(name.wire, Rcode.NOERROR, answer=(rrset,), rclass=CLASS_CH, count=count)
