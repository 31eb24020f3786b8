"""A small DNS server on loopback: n300.test is 10.0.1.44, 300 in two bytes.

python dns_server.py PORT
"""

from __future__ import annotations

import socket
import struct
import sys

HEADER = struct.Struct("!HHHHHH")  # RFC 1035, section 4.1.1
RECORD = struct.Struct("!HHHIH4s")
ANSWER_FLAGS = 0x8180  # a response; recursion is desired and available
NO_SUCH_NAME = 3
NAME_OF_QUESTION = 0xC000 | HEADER.size  # a pointer, section 4.1.4
TYPE_A, CLASS_IN, LIVE_SECONDS = 1, 1, 60


def reply_to(query: bytes) -> bytes:
    """Answer the first question of a query."""
    label_size = query[HEADER.size]
    label = query[HEADER.size + 1 : HEADER.size + 1 + label_size]
    question = query[HEADER.size : query.index(0, HEADER.size) + 5]
    (number,) = struct.unpack_from("!H", query)
    if not (label[:1] == b"n" and label[1:].isdigit() and int(label[1:]) < 2**24):
        header = HEADER.pack(number, ANSWER_FLAGS | NO_SUCH_NAME, 1, 0, 0, 0)
        return header + question
    address = (10 << 24 | int(label[1:])).to_bytes(4, "big")
    header = HEADER.pack(number, ANSWER_FLAGS, 1, 1, 0, 0)
    return (
        header
        + question
        + RECORD.pack(NAME_OF_QUESTION, TYPE_A, CLASS_IN, LIVE_SECONDS, 4, address)
    )


def main() -> None:
    """Serve until the process is ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", int(sys.argv[1])))
        while True:
            query, peer = sock.recvfrom(4096)
            sock.sendto(reply_to(query), peer)


main()
