"""Hosts: the loops of Python that can carry a native loop; one file for each."""

from fdmux.hosts.mounted import Mounted
from fdmux.hosts.registry import current, mount, running

__all__ = ["Mounted", "current", "mount", "running"]
