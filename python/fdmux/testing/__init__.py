"""fdmux.testing: the conformance kit for hosts of native code.

The kit runs the same cases on every host. ``python -m fdmux.testing`` prints a table
for the hosts that fdmux knows. Authors of other hosts write a `Host` class and run the
cases on it:

>>> @pytest.mark.parametrize("name", fdmux.testing.CASES)
... def test_conformance(name):
...     fdmux.testing.run_case(MyHost, name)

The kit needs neither a compiler nor pytest.
"""

from fdmux.testing.cases import CASES, run_case
from fdmux.testing.host import Host
from fdmux.testing.known import HOSTS
from fdmux.testing.native import NativeCode, NativeJob
from fdmux.testing.session import Session

__all__ = ["CASES", "HOSTS", "Host", "NativeCode", "NativeJob", "Session", "run_case"]
