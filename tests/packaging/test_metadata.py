"""What an index shows of the package, and what type checkers find in it."""

from __future__ import annotations

import configparser
import json
import re
from email import message_from_string
from typing import TYPE_CHECKING

import pytest
from tests.packaging.conftest import EXTENSIONS

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

    from tests.examples.conftest import Installation

pytestmark = pytest.mark.slow  # the wheel is built for the first of them

HOST = re.compile(r"\w+://([^/\s\"'<>)]*)")
# Hosts that everybody reaches. A link to any other is looked at by a person.
PUBLIC_HOSTS = {"semver.org"}
MINORS = range(11, 14)
SIZE_MAX = 560_000  # of the wheel, compressed: a third more than it is


@pytest.fixture(scope="module")
def dist_info(unpacked: Path) -> Path:
    (folder,) = unpacked.glob("*.dist-info")
    return folder


@pytest.fixture(scope="module")
def metadata(dist_info: Path) -> Message:
    return message_from_string((dist_info / "METADATA").read_text(encoding="utf-8"))


def test_licence_is_an_expression_and_a_file(
    metadata: Message, dist_info: Path
) -> None:
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert "MIT License" in (dist_info / "licenses" / "LICENSE").read_text()


def test_classifiers_say_what_is_supported(metadata: Message) -> None:
    classifiers = set(metadata.get_all("Classifier", []))
    python = "Programming Language :: Python :: "
    versions = {each for each in classifiers if each.startswith(f"{python}3.")}
    assert versions == {f"{python}3.{minor}" for minor in MINORS}
    assert f"{python}Implementation :: CPython" in classifiers
    assert "Operating System :: POSIX :: Linux" in classifiers
    assert "Typing :: Typed" in classifiers
    # The licence expression replaces them, and an index refuses both together.
    assert not [each for each in classifiers if each.startswith("License ::")]


def test_links_lead_to_public_hosts_alone(metadata: Message) -> None:
    """Neither the description nor the links name a developer's machine."""
    hosts = set(HOST.findall(metadata.as_string()))
    assert hosts <= PUBLIC_HOSTS


def test_description_is_the_readme(metadata: Message) -> None:
    assert metadata["Description-Content-Type"].startswith("text/markdown")
    assert str(metadata.get_payload()).lstrip().startswith("# fdmux\n")


def test_entry_points(dist_info: Path) -> None:
    found = configparser.ConfigParser()
    found.read(dist_info / "entry_points.txt")
    assert sorted(found.sections()) == ["console_scripts", "pkg_config"]
    assert dict(found["pkg_config"]) == {"fdmux": "fdmux.lib.pkgconfig"}
    assert dict(found["console_scripts"]) == {"fdmux": "fdmux.__main__:main"}


def test_types_come_along(unpacked: Path) -> None:
    """``py.typed``, and a stub for each module that is not Python."""
    assert (unpacked / "fdmux" / "py.typed").is_file()
    for name in EXTENSIONS:
        assert (unpacked / "fdmux" / f"{name}.pyi").is_file()


def test_nothing_of_the_tests_is_in_it(unpacked: Path) -> None:
    names = [path.name for path in unpacked.rglob("*")]
    assert "loop.py" in names
    assert not [name for name in names if re.match(r"tests?\b|test_|conftest", name)]


def test_wheel_has_a_bill_of_materials(metadata: Message, dist_info: Path) -> None:
    """PEP 770: where scanners look for it. It names the version, and what it needs."""
    bill = json.loads((dist_info / "sboms" / "fdmux.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    component = bill["metadata"]["component"]
    assert component["purl"] == f"pkg:pypi/fdmux@{metadata['Version']}"
    assert component["version"] == metadata["Version"]
    needed = [
        re.match(r"\w+", each)
        for each in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in each
    ]
    purls = [f"pkg:pypi/{name[0]}" for name in needed if name]
    assert [each["purl"] for each in bill["components"]] == purls
    assert bill["dependencies"][0]["dependsOn"] == purls
    references = {each["bom-ref"] for each in [component, *bill["components"]]}
    assert {each["ref"] for each in bill["dependencies"]} == references


def test_wheel_is_small(installation: Installation) -> None:
    assert installation.wheel.stat().st_size <= SIZE_MAX
