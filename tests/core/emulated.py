"""Which C cases an emulation of kqueue(2) cannot carry, and why.

`NEEDS` names what a case needs of kqueue(2); `kqueue_probe.c` finds out what the
emulation lacks, so a case runs as soon as the emulation has it.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

REASONS = {
    "both": "reading and writing of one descriptor",
    "pollable": "a kqueue that is readable when it has something to report",
    "close": "close(2) that removes the entries of a number",
    "exact": "a wait that does not end before its timeout",
    "descriptors": "a kqueue that is one descriptor and no more",
}
# By the beginning of a program's name: nearly all of its cases.
NEEDS_OF_FILES = {
    "test_stream": "both",
    "test_tls": "both",
    "test_datagram": "both",
    "test_fuzz": "both",
    "test_hosted": "pollable",
    "test_faults": "descriptors",
}
NEEDS = {
    "both": """
        each_gets_only_what_it_asked_for
        hangup_wakes_both_directions
        items_of_four_threads_come_once_and_in_the_order_of_each
        items_of_four_threads_come_once_through_a_full_queue
        socket_is_writable_and_readable_at_once
        thread_adds_updates_and_removes_while_another_dispatches
        updating_one_leaves_the_others
        watcher_that_leaves_a_closed_descriptor_leaves_no_busy_loop
        """,
    "pollable": """
        child_of_one_of_the_last_hooks_leaves_the_host_of_the_parent_alone
        hosted_descriptor_is_armed_for_the_next_timer
        hosted_descriptor_is_quiet_when_nothing_is_pending_any_more
        hosted_descriptor_stays_readable_while_a_stream_is_pending
        hosted_parent_keeps_its_descriptor
        loops_nest
        wake_inside_the_last_hooks_wakes_the_host
        """,
    "close": """
        leaving_watcher_does_not_revive_its_neighbour_on_a_reused_number
        new_watcher_of_a_reused_number_orphans_the_old_one
        number_of_a_closed_level_watcher_may_be_watched_for_edges
        number_reused_after_it_was_found_closed_is_not_the_old_one
        """,
    "exact": """
        closed_descriptor_is_silent_and_does_not_spin
        delay_counts_from_now_and_is_never_early
        no_events_watch_nothing_and_do_not_spin_on_hangup
        null_removes_it
        random_timers_of_the_next_milliseconds_fire_in_order_and_not_early
        several_wakes_cause_one_return
        timer_armed_by_a_hook_ends_the_wait
        timer_is_never_early
        """,
    "descriptors": """
        every_descriptor_of_a_loop_is_close_on_exec
        loop_costs_at_most_two_descriptors
        """,
}
NEED_OF_CASE = {case: need for need, cases in NEEDS.items() for case in cases.split()}


def needed(program: str, case: str) -> str | None:
    """Return what a case needs that an emulation may lack."""
    for beginning, need in NEEDS_OF_FILES.items():
        if program.startswith(beginning):
            return need
    return NEED_OF_CASE.get(case)


def lacking(programs: Path) -> set[str]:
    """Ask the probe what the emulation lacks."""
    probe = subprocess.run(
        [str(programs / "kqueue_probe")], capture_output=True, text=True, check=True
    )
    return set(probe.stdout.split())
