"""One question to one nameserver."""

from __future__ import annotations

from agent.diagnosis.experiment import Looked, Lookup
from agent.net.address import Address
from agent.net.dns_exchange import NoReply, Transport, ask
from agent.net.dns_message import Question, RecordType
from agent.prober import Recorder, listed


async def look_up(lookup: Lookup, server: Address, patience_seconds: float) -> Looked:
    """Ask, and wait so long for the answer. An answer that was cut at the size of a datagram is fetched over TCP."""
    question = Question(lookup.name.removesuffix("."), RecordType(lookup.record))
    (finding,) = await ask(
        server, [question], Recorder(), transport=Transport(lookup.transport), patience_seconds=patience_seconds
    )
    if isinstance(finding.seen, NoReply):
        return Looked(rcode=None, error=finding.seen.reason)
    return Looked(rcode=str(finding.seen.rcode), records=tuple(listed(finding.seen.records)))
