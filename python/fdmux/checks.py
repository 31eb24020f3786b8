"""Checks of arguments: each refuses at the call, and names the argument.

Its one rule: a message says which argument, what it got and what it wants. Used by all
parts of the package; opens nothing and knows no loop. The checks of handlers and limits
are in streams/checks.py, the one of loops is in loop/event_loop.py.
"""

from __future__ import annotations

import operator
import selectors
import sys
from math import inf, isnan
from typing import TYPE_CHECKING, SupportsFloat, SupportsIndex

if TYPE_CHECKING:
    from typing import TypeAlias

    # Any real number: int, float, Fraction, Decimal, a scalar of NumPy.
    Seconds: TypeAlias = SupportsFloat | SupportsIndex

# RFC 1035 section 2.3.4; getaddrinfo(3) has no use for more either.
HOST_LENGTH_MAX = 255
PORT_MAX = 65535


def checked_timeout(timeout: Seconds | None, name: str = "timeout") -> float:
    """Return ``timeout`` as a float; ``inf`` for None and what no float can hold.

    Units:   seconds
    Raises:
        TypeError: It is not a real number.
        ValueError: It is NaN.
    """
    if timeout is None:
        return inf
    return checked_seconds(timeout, name, "a number of seconds, or None")


def checked_seconds(
    given: Seconds, name: str, wanted: str = "a number of seconds"
) -> float:
    """Return ``given`` as a float; ``inf`` for what no float can hold.

    Units:   seconds
    Raises:
        TypeError: It is not a real number.
        ValueError: It is NaN.
    """
    if type(given) is float and not isnan(given):  # the usual case
        return given
    if isinstance(given, (str, bytes, bytearray)):  # float() would parse them
        raise TypeError(refusal(name, given, wanted))
    try:
        seconds = float(given)
    except TypeError:
        raise TypeError(refusal(name, given, wanted)) from None
    except OverflowError:  # an integer or fraction of more than 308 digits
        return inf if given > 0 else -inf  # type: ignore[operator] # a number, see above
    except ValueError:  # a signalling NaN of decimal
        seconds = float("nan")
    if isnan(seconds):
        raise ValueError(f"{name} is NaN; it must be {wanted}")
    return seconds


def checked_integer(
    name: str, value: SupportsIndex, at_least: int, at_most: int | None = None
) -> int:
    """Return ``value`` as an int within its bounds, both included.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is out of bounds.
    """
    bounds = f">= {at_least}" if at_most is None else f"in {at_least}..{at_most}"
    number = integer(name, value, bounds)
    if number < at_least or (at_most is not None and number > at_most):
        raise ValueError(refusal(name, number, bounds))
    return number


def checked_port(port: SupportsIndex) -> int:
    """Return ``port`` as an int.

    Raises:
        TypeError: It is not an integer.
        OverflowError: It is not in 0 to 65535; as `socket.socket.connect` has it.
    """
    bounds = f"in 0..{PORT_MAX}"
    number = integer("port", port, bounds)
    if not 0 <= number <= PORT_MAX:
        raise OverflowError(refusal("port", number, bounds))
    return number


def check_host(host: str) -> None:
    """Refuse what no resolver should see.

    Raises:
        TypeError: ``host`` is not a str.
        ValueError: It is empty, too long, or cannot be a name.
    """
    if not isinstance(host, str):
        raise TypeError(refusal("host", host, "a str"))
    if not host:
        raise ValueError("host is empty")
    if len(host) > HOST_LENGTH_MAX:
        raise ValueError(f"host has {len(host)} characters, more than any name can")
    if "\0" in host:
        raise ValueError(f"host {host!r} contains a NUL")
    try:
        host.encode("idna")  # what getaddrinfo would do, only later
    except UnicodeError as error:
        raise ValueError(f"host {host!r} cannot be a name: {error}") from error


def check_callable(name: str, value: object) -> None:
    """Refuse what cannot be called.

    Raises:
        TypeError: ``value`` is not callable.
    """
    if not callable(value):
        raise TypeError(refusal(name, value, "callable"))


def check_selector(selector: object) -> None:
    """Refuse what is neither a selector nor None.

    Raises:
        TypeError: ``selector`` is something else.
    """
    if not isinstance(selector, selectors.BaseSelector | None):
        wanted = "a selectors.BaseSelector, or None"
        raise TypeError(refusal("selector", selector, wanted))


def integer(name: str, value: SupportsIndex, bounds: str) -> int:
    """Return ``value`` as an int.

    Raises:
        TypeError: It is not an integer.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(refusal(name, value, f"an integer {bounds}")) from None


def refusal(name: str, value: object, wanted: str) -> str:
    """Say which argument is wrong, what it is and what it must be."""
    text = repr(value)
    if len(text) > 80:
        text = f"{text[:77]}..."
    return f"{name} is {text}; it must be {wanted}"


def check_tls_context(context: object) -> None:
    """Refuse what is not an `ssl.SSLContext`; without importing `ssl`.

    Raises:
        TypeError: The message says so.
    """
    ssl = sys.modules.get("ssl")  # whoever has a context has imported it
    if ssl is None or not isinstance(context, ssl.SSLContext):
        raise TypeError(refusal("the TLS context", context, "an ssl.SSLContext"))
