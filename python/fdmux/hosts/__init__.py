"""Mount a native loop on a loop of Python, its host; one file for each kind of host."""

from fdmux.hosts.mounted import Mounted
from fdmux.hosts.registry import current, mount, running

__all__ = ["Mounted", "current", "mount", "running"]
