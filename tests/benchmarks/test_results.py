"""Do tables, saved runs, pictures and baselines say what the samples say?

Nothing is measured here: the samples are written down.
"""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from benchmarks.progress import Countdown
from benchmarks.result import Limit, Table
from benchmarks.saved import NotSaved, Run, differences
from tests.tree import ROOT

from benchmarks import __main__ as command
from benchmarks import baseline

if TYPE_CHECKING:
    from pathlib import Path

STEADY = [1.0, 1.01, 0.99, 1.0, 1.0]
BASE = [1.0] * 5


def table(own: list[float], *limits: Limit) -> Table:
    samples = {"base": BASE, "fdmux": own}
    return Table("echo", "100 connections", "CPU us", "base", samples, {}, limits)


def run(own: list[float]) -> Run:
    return Run({"processor": "a", "python": "b", "kernel": "c"}, [table(own)])


# ---- noise -----------------------------------------------------------------------


def test_steady_samples_conclude() -> None:
    assert not table(STEADY).is_too_noisy
    assert "TOO NOISY" not in table(STEADY).as_text()


def test_scattered_samples_do_not_conclude() -> None:
    noisy = table([1.0, 1.5, 0.8, 1.3, 0.9])
    assert noisy.is_too_noisy
    assert "TOO NOISY to conclude" in noisy.as_text()


def test_few_rounds_say_nothing_of_noise() -> None:
    samples = {"base": [1.0, 1.0], "fdmux": [1.0, 3.0]}
    assert Table("r", "s", "u", "base", samples).noise() is None


def test_table_without_a_baseline_says_nothing_of_noise() -> None:
    assert Table("r", "s", "u", None, {"fdmux": [1.0, 9.0] * 4}).noise() is None


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        ([1.0] * 5, "1.000, held"),
        ([1.2] * 5, "1.200, MISSED"),
        ([0.9, 1.0, 1.09, 1.12, 1.2], "1.090, held, within the noise"),
        ([0.9, 1.0, 1.12, 1.13, 1.2], "1.120, MISSED, within the noise"),
    ],
)
def test_verdict_tells_what_the_noise_leaves_open(
    own: list[float], verdict: str
) -> None:
    lines = table(own, Limit("fdmux", 1.1, of="base")).as_text().splitlines()
    limit = next(line for line in lines if line.startswith("  limit:"))
    assert limit == f"  limit: fdmux at most 1.10 of base: {verdict}"


# ---- saved runs ------------------------------------------------------------------


def test_saved_run_is_read_back(tmp_path: Path) -> None:
    saved = Run({"python": "3"}, [table(STEADY, Limit("fdmux", 1.1, of="base"))])
    saved.write(tmp_path / "run.json")
    assert Run.read(tmp_path / "run.json") == saved


EMPTY = json.dumps(
    {"machine": {}, "tables": [Table("r", "s", "u", None, {"a": [1.0]}).as_json()]}
).replace('"samples": [1.0]', '"samples": []')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"machine": {}, "tables": [1]}',
        '{"machine": 5, "tables": []}',
        EMPTY,
    ],
)
def test_other_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(NotSaved, match=r"other\.json is not a saved run"):
        Run.read(path)


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotSaved, match=r"none\.json is not a saved run"):
        Run.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        ([1.0, 1.005, 0.995, 1.0, 1.01], "same"),
        ([1.5] * 5, "50% more"),
        ([0.5] * 5, "50% less"),
    ],
)
def test_runs_differ_if_their_middle_halves_lie_apart(
    own: list[float], verdict: str
) -> None:
    (text,) = differences(run(STEADY), run(own))
    assert text.splitlines()[-1].endswith(f"   {verdict}")


def test_ratios_are_not_compared_with_values() -> None:
    """In one of the runs the baseline was left out: there is no ratio."""
    alone = Table("echo", "100 connections", "CPU us", "base", {"fdmux": [9.0] * 5})
    machine = run(STEADY).machine
    for old, new in (
        (run(STEADY), Run(machine, [alone])),
        (Run(machine, [alone]),) * 2,
    ):
        (text,) = differences(old, new)
        assert "fdmux" not in text


def test_change_from_zero_has_no_share() -> None:
    runs = [
        Run({}, [Table("r", "s", "u", None, {"fdmux": [value] * 5})])
        for value in (0.0, 4.0)
    ]
    (text,) = differences(*runs)
    assert text.splitlines()[-1].endswith("   more")


def test_comparison_names_another_machine() -> None:
    other = Run({"processor": "z", "python": "b", "kernel": "c"}, [])
    assert list(differences(run(STEADY), other)) == [
        "another processor: a before, z now"
    ]


def test_comparison_does_not_conclude_from_noise() -> None:
    (text,) = differences(run(STEADY), run([1.0, 1.5, 0.8, 1.3, 0.9]))
    assert text.splitlines()[-1] == "  TOO NOISY to conclude: this run"


def test_command_shows_a_saved_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "run.json")
    run(STEADY).write(tmp_path / "run.json")
    monkeypatch.setattr("sys.argv", ["x", "--saved", path, "--compare", path])
    assert command.main() == 0
    output = capsys.readouterr().out
    assert "echo: 100 connections\n" in output
    assert "compared with the saved run" in output


# ---- progress --------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (Terminal(), "\r    round 1 of 3, 40 s left\x1b[K"),
        (io.StringIO(), "    round 1 of 3, 40 s left\n"),
    ],
)
def test_countdown_tells_the_time_that_is_left(output: io.StringIO, shown: str) -> None:
    clock = Clock()
    countdown = Countdown("round", 3, output=output, clock=clock)
    clock.now = 20.0
    countdown.step()
    assert output.getvalue() == shown
    assert countdown.left() == 40.0


def test_countdown_in_a_file_is_silent_about_what_is_soon_over() -> None:
    output, clock = io.StringIO(), Clock()
    countdown = Countdown("round", 3, output=output, clock=clock)
    for _ in range(3):
        clock.now += 1.0
        countdown.step()
    countdown.end()
    assert not output.getvalue()


# ---- pictures --------------------------------------------------------------------


def drawn(saved: Path, folder: Path) -> dict[str, str]:
    """Draw in another process: matplotlib keeps its fonts open."""
    words = ["--saved", str(saved), "--svg", str(folder)]
    subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT, check=True)
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_pictures_hold_the_figures(tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("no matplotlib: pip install '.[bench]'")
    limited = table([1.23] * 5, Limit("fdmux", 1.1, of="base"))
    Run({}, [limited, table(STEADY)]).write(tmp_path / "run.json")
    pictures = drawn(tmp_path / "run.json", tmp_path / "one")
    assert list(pictures) == ["echo-dark.svg", "echo-light.svg"]
    for picture in pictures.values():
        texts = list(ET.fromstring(picture).itertext())  # noqa: S314 - we drew it
        assert "1.23" in texts
        assert "100 connections; ratio to base" in texts
    assert drawn(tmp_path / "run.json", tmp_path / "two") == pictures


def test_markdown_shows_which_limit_was_missed() -> None:
    text = table([1.23] * 5, Limit("fdmux", 1.1, of="base")).as_markdown()
    assert text.splitlines() == [
        "**100 connections** (CPU us)",
        "",
        "| | median | ratio to base | middle half | limit |",
        "|---|---|---|---|---|",
        "| base | 1.00 | 1.00 | 1.00 to 1.00 |  |",
        "| fdmux | 1.23 | 1.23 | 1.23 to 1.23 | 1.10 of base (**1.23**) |",
    ]


# ---- the baseline of instructions ------------------------------------------------


def test_baseline_holds_within_its_tolerance() -> None:
    assert baseline.compare({"a": 100.0, "b": 50.0}, {"a": 102.9, "b": 48.6}) == []


def test_baseline_names_what_is_beyond_its_tolerance() -> None:
    assert baseline.compare({"a": 1000.0, "b": 50.0}, {"a": 1031.0, "c": 1.0}) == [
        "a: 1,031 instructions a message or event, +3.1% of 1,000",
        "b: not counted",
        "c: not in the baseline",
    ]


def test_less_work_needs_a_new_baseline_too() -> None:
    """Otherwise the next change could give the gain back unseen."""
    assert baseline.compare({"a": 1000.0}, {"a": 900.0})


def test_committed_baseline_has_every_hot_path() -> None:
    saved = json.loads(baseline.PATH.read_text())
    assert saved
    for environment, counts in saved.items():
        assert counts.keys() == baseline.HOT_PATHS.keys(), environment
