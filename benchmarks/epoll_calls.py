"""The cost of epoll without Python around it: programs/native/epoll_calls.c."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

from benchmarks.build import build


@dataclass(frozen=True)
class EpollCalls:
    """The three measured system calls, each repeated in C."""

    library: ctypes.CDLL

    @classmethod
    def load(cls) -> EpollCalls:
        return cls(ctypes.CDLL(str(build("epoll_calls.c", "-shared", "-fPIC"))))

    def wait(self, epoll_fd: int, count: int) -> int:
        """Wait ``count`` times without blocking; return what the last one found."""
        return _checked(self.library.bench_epoll_wait(epoll_fd, count))

    def add_remove(self, epoll_fd: int, fd: int, count: int) -> None:
        _checked(self.library.bench_epoll_add_remove(epoll_fd, fd, count))

    def modify(self, epoll_fd: int, fd: int, count: int) -> None:
        _checked(self.library.bench_epoll_modify(epoll_fd, fd, count))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
