"""A DNS server on loopback: n123.test is 10.0.0.123; it drops what begins with drop.

    python dns_peer.py PORT

Numbers above 255 go on to the next byte: n300.test is 10.0.1.44.
"""

from __future__ import annotations

import socket
import struct
import sys

HEADER = struct.Struct("!HHHHHH")
ANSWER = struct.Struct("!HHHIH")  # a pointer to the name, A, IN, seconds to live, size
RESPONSE = 0x8180  # an answer, recursion desired and available (RFC 1035, 4.1.1)
NO_SUCH_NAME = 3


def first_label(query: bytes) -> bytes:
    """Return the first label of the question, which follows the header."""
    size = query[HEADER.size]
    return query[HEADER.size + 1 : HEADER.size + 1 + size]


def end_of_question(query: bytes) -> int:
    at = HEADER.size
    while query[at]:
        at += query[at] + 1
    return at + 5  # the last label is empty; a type and a class follow


def answer(query: bytes) -> bytes | None:
    number, *_rest = HEADER.unpack_from(query)
    label = first_label(query)
    question = query[HEADER.size : end_of_question(query)]
    if label.startswith(b"drop"):
        return None
    if not label[1:].isdigit():
        return HEADER.pack(number, RESPONSE | NO_SUCH_NAME, 1, 0, 0, 0) + question
    record = ANSWER.pack(0xC000 | HEADER.size, 1, 1, 60, 4)
    address = (10 << 24 | int(label[1:])).to_bytes(4, "big")
    return HEADER.pack(number, RESPONSE, 1, 1, 0, 0) + question + record + address


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", int(sys.argv[1])))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            query, peer = sock.recvfrom(4096)
            reply = answer(query)
            if reply is not None:
                sock.sendto(reply, peer)


if __name__ == "__main__":
    main()
