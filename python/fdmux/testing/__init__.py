"""fdmux.testing: does a loop host native code as it should?

The kit runs the same cases on every host. ``python -m fdmux.testing`` prints the table
for those that fdmux knows; authors of others write a `Host` and run it as well:

>>> @pytest.mark.parametrize("name", fdmux.testing.CASES)
... def test_conformance(name):
...     fdmux.testing.run_case(MyHost, name)

Nothing here needs a compiler or pytest.
"""

from fdmux.testing.cases import CASES, run_case
from fdmux.testing.host import Host
from fdmux.testing.known import HOSTS
from fdmux.testing.native import NativeCode, NativeJob
from fdmux.testing.session import Session

__all__ = ["CASES", "HOSTS", "Host", "NativeCode", "NativeJob", "Session", "run_case"]
