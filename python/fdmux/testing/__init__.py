"""fdmux.testing: the conformance kits for hosts of native code, and for adapters.

The kit runs the same cases on every host. ``python -m fdmux.testing`` prints a table
for the hosts that fdmux knows. Authors of other hosts write a `Host` class and run the
cases on it:

>>> @pytest.mark.parametrize("name", fdmux.testing.CASES)
... def test_conformance(name):
...     fdmux.testing.run_case(MyHost, name)

Authors of an adapter write an `Adapter` class, and run `ADAPTER_CASES` on it in the
same way, with `run_adapter_case`.

The kits need neither a compiler nor pytest.
"""

from fdmux.testing.adapter import Adapter
from fdmux.testing.cases import CASES, run_case
from fdmux.testing.cases_adapter import ADAPTER_CASES, run_adapter_case
from fdmux.testing.host import Host
from fdmux.testing.known import HOSTS
from fdmux.testing.native import NativeCode, NativeJob
from fdmux.testing.session import Session

__all__ = [
    "ADAPTER_CASES",
    "CASES",
    "HOSTS",
    "Adapter",
    "Host",
    "NativeCode",
    "NativeJob",
    "Session",
    "run_adapter_case",
    "run_case",
]
