"""A zone of names and how its questions are answered, without I/O.

dnspython reads and writes the messages. What is no question gets no answer, so that
nobody can make two servers talk to each other for ever.
"""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

SIZE_MAX = 1232  # fits into one packet nearly everywhere (DNS Flag Day 2020)
PLAIN_SIZE_MAX = 512  # without EDNS: RFC 1035 section 4.2.1

Records = dict[tuple[dns.name.Name, int], dns.rrset.RRset]


class Zone:
    """Answers questions about the names of one zone.

    Args:
        text: Lines such as ``www 60 IN A 192.0.2.1``, relative to ``origin``.
        origin: The name of the zone.
    """

    def __init__(self, text: str, origin: str) -> None:
        self._origin = dns.name.from_text(origin)
        self._records: Records = {}
        for line in filter(None, map(str.strip, text.splitlines())):
            name, seconds, _class, kind, data = line.split(None, 4)
            owner = dns.name.from_text(name, self._origin)
            record = dns.rrset.from_text_list(
                *(owner, int(seconds), "IN", kind, [data]),
                origin=self._origin,
                relativize=False,
            )
            found = self._records.setdefault((owner, record.rdtype), record)
            found.update(record)
        self._names = {owner for owner, _kind in self._records}

    def answer(self, wire: bytes) -> bytes | None:
        """Return the answer to a message, or None if it is no question."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.flags & dns.flags.QR:
            return None
        reply = dns.message.make_response(query, our_payload=SIZE_MAX)
        self._fill(query, reply)
        size = min(query.payload, SIZE_MAX) if query.edns >= 0 else PLAIN_SIZE_MAX
        try:
            return reply.to_wire(max_size=max(size, PLAIN_SIZE_MAX))
        except dns.exception.TooBig:
            short = dns.message.make_response(query, our_payload=SIZE_MAX)
            short.flags |= dns.flags.TC  # the client may ask again over TCP
            return short.to_wire()

    def _fill(self, query: dns.message.Message, reply: dns.message.Message) -> None:
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            reply.set_rcode(dns.rcode.NOTIMP)
            return
        (question,) = query.question
        if not question.name.is_subdomain(self._origin):
            reply.set_rcode(dns.rcode.REFUSED)
            return
        reply.flags |= dns.flags.AA
        record = self._records.get((question.name, question.rdtype))
        if record is not None:
            reply.answer.append(record)
        elif question.name not in self._names:
            reply.set_rcode(dns.rcode.NXDOMAIN)
