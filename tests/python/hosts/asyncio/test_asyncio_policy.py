"""install(): every new loop of asyncio is ours, where policies exist."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

import pytest

from fdmux.hosts import asyncio as host

if TYPE_CHECKING:
    from collections.abc import Iterator

if sys.version_info >= (3, 16):
    pytest.skip("asyncio has no policies", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def policy_of_asyncio() -> Iterator[None]:
    """Have asyncio's own policy again after the test."""
    yield
    asyncio.set_event_loop_policy(None)


async def kind_of_loop() -> type:
    return type(asyncio.get_running_loop())


def test_installed_policy_makes_every_new_loop_ours() -> None:
    host.install()
    assert isinstance(asyncio.get_event_loop_policy(), host.EventLoopPolicy)
    assert asyncio.run(kind_of_loop()) is host.EventLoop
    with asyncio.Runner() as runner:
        assert runner.run(kind_of_loop()) is host.EventLoop
    asyncio.new_event_loop().close()


def test_policy_keeps_one_loop_for_the_thread() -> None:
    policy = host.EventLoopPolicy()
    loop = policy.new_event_loop()
    policy.set_event_loop(loop)
    assert policy.get_event_loop() is loop
    policy.set_event_loop(None)
    loop.close()


@pytest.mark.slow
def test_child_process_is_awaited_under_the_policy() -> None:
    program = """
import asyncio, sys
from fdmux.hosts.asyncio import EventLoop, install

async def main():
    assert isinstance(asyncio.get_running_loop(), EventLoop)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "exit(7)")
    return await child.wait()

install()
assert asyncio.run(main()) == 7
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


@pytest.mark.parametrize("is_deprecated", [False, True])
def test_install_warns_where_policies_are_deprecated(
    monkeypatch: pytest.MonkeyPatch, is_deprecated: bool
) -> None:
    monkeypatch.setattr(
        "fdmux.hosts.asyncio.policy.ARE_POLICIES_DEPRECATED", is_deprecated
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        host.install()
    messages = [(each.filename, each.category) for each in caught]
    assert messages == [(__file__, DeprecationWarning)] * is_deprecated
    assert all("pass loop_factory=" in str(each.message) for each in caught)


def test_module_without_such_a_name_says_so() -> None:
    with pytest.raises(AttributeError, match=r"fdmux\.hosts\.asyncio.*'no_such_name'"):
        host.no_such_name  # noqa: B018 - looking is what raises
