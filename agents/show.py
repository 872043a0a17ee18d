"""Shows a test call to a person: the conversation and the floor as they happen, and a summary at the end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coordination.testing.happenings import Happening, What
from coordination.testing.report import HandoffReport, Report, Saved, Survival

_COLOURS = {"receptionist": "cyan", "billing": "magenta", "technical": "yellow"}
_CALLER = "bold green"
_LABELS = {
    What.CALLER_SAYS: "caller",
    What.CALLER_TYPES: "caller (types)",
    What.CALLER_BARGES_IN: "caller (barges in)",
}
_ABOUT_THE_CALLER = {
    What.CALLER_SILENT: "The caller says nothing.",
    What.CALLER_HANGS_UP: "The caller hangs up.",
    What.CALLER_JOINS: "The caller is on the line.",
}


class Narrator:
    """Prints each happening as a line. To be given to `run_scenario` as `tell`."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, happening: Happening) -> None:
        line = _line(happening)
        if line is not None:
            clock = Text(f"{happening.at.total_seconds():6.1f} s  ", style="dim")
            self._console.print(clock + line, soft_wrap=True, highlight=False)


def _line(happening: Happening) -> Text | None:
    what, who = happening.what, happening.who
    if what in _LABELS:
        return Text(f"{_LABELS[what]}: ", style=_CALLER) + Text(happening.text)
    if what in _ABOUT_THE_CALLER:
        return Text(_ABOUT_THE_CALLER[what], style="green")
    if what is What.AGENT_SAYS:
        return Text(f"{who}: ", style=f"bold {_COLOURS.get(who, 'blue')}") + Text(happening.text)
    if what is What.FLOOR:
        return Text(f"-- the floor is {who}'s (fence {happening.fence})", style=_COLOURS.get(who, "blue"))
    if what in (What.AGENT_JOINS, What.AGENT_LEAVES):
        verb = "joins" if what is What.AGENT_JOINS else "leaves"
        return Text(f"-- {who} {verb} the room", style="dim")
    if what is What.FAULT:
        return Text(f"** {happening.text}", style="bold red")
    if what is What.UNDERSTOOD:
        return Text(f"   ({who} understood: {happening.text})", style="dim")
    return Text(f"!! {f'{who}: ' if who else ''}{happening.text}", style="red")


def summarise(console: Console, report: Report) -> None:
    """What the call showed, measured from what the caller received."""
    console.print()
    if report.handoffs:
        console.print(_handoffs(report.handoffs))
        console.print()
    console.print(
        f"{report.answered_turns} of {report.turns} turns answered, {report.double_answers} answered twice, "
        f"{report.overlap_ms} ms of two voices at once, {report.second_greetings} second greetings, "
        f"{report.duration_ms / 1000:.0f} s in all.",
        highlight=False,
    )
    if report.saved is not None:
        console.print(_saved(report.saved))
    if report.survival is not None:
        console.print(_survival(report.survival), highlight=False)
    for reason in report.reasons:
        console.print(Text(f"  - {reason}", style="red"), soft_wrap=True)
    verdict = Text("ok", style="bold green") if report.ok else Text("not ok", style="bold red")
    console.print(Text(f"Scenario {report.scenario}: ") + verdict)


def _survival(survival: Survival) -> str:
    moments = {"detected": survival.detected_ms, "ready": survival.ready_ms, "heard": survival.heard_ms}
    told = ", ".join(f"{name} after {at} ms" for name, at in moments.items() if at is not None)
    return (
        f"The fault: {survival.lost_calls} of {survival.calls} calls lost, {survival.lost_turns} turns lost, "
        f"{survival.silence_ms} ms at most without an answer" + (f"; another agent {told}." if told else ".")
    )


def _saved(saved: Saved) -> Table:
    """The rows of the database against what was said."""
    title = (
        f"In the database: {len(saved.rows)} messages of {saved.said} that were said, {len(saved.missing)} missing, "
        f"{len(saved.doubled)} doubled, {'in order' if saved.in_order else 'NOT in order'}"
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for column in ("speaker", "row in the database", "by the caller's script, or in the recording"):
        table.add_column(column, header_style="dim", overflow="fold")
    for row in saved.rows:
        who = row.role or row.speaker if row.speaker == "agent" else row.speaker
        table.add_row(who, row.text, row.matches or "-")
    handoffs = f", {saved.handoffs} handoffs" if saved.handoffs else ""
    table.caption = f"Record of the session: {saved.messages} messages{handoffs}, {saved.participants} caller(s)" + (
        f"; tickets: {', '.join(saved.tickets)}" if saved.tickets else ""
    )
    table.caption_justify = "left"
    return table


def _handoffs(handoffs: tuple[HandoffReport, ...]) -> Table:
    table = Table(title="Handoffs, as the caller heard them", title_justify="left", title_style="bold", box=None)
    for column in ("from", "to", "kind"):
        table.add_column(column, header_style="dim", min_width=12)
    for column in ("until ready", "voice gap", "silence"):
        table.add_column(column, header_style="dim", justify="right", min_width=10)
    for each in handoffs:
        numbers = (each.decision_to_ready_ms, each.voice_gap_ms, each.silence_ms)
        row = (each.from_role, each.to_role, each.kind.value, *("-" if n is None else f"{n} ms" for n in numbers))
        table.add_row(*row)
    return table
