"""What technical support can do: measure the line, look for outages, send a technician.

The line and the appointments are made up; appointments live in the memory of the call's job process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from livekit.agents import RunContext, function_tool

from agents.handoffs import to_billing, to_receptionist


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a measurement of the caller's line shows."""

    drops: int
    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Appointment:
    """A technician's visit."""

    ticket: str
    when: str


LINE = Line(drops=14, signal="weak")
FIRST_TICKET = 4711

_appointments: list[Appointment] = []


@function_tool
async def check_line() -> str:
    """Measure the caller's line."""
    return f"I have checked your line. It dropped {LINE.drops} times since yesterday, and the signal is {LINE.signal}."


@function_tool
async def check_outage() -> str:
    """Whether there is an outage in the caller's area."""
    return "There is no outage in your area."


@function_tool
async def book_technician(context: RunContext[Any], when: str) -> str:
    """Send a technician to the caller.

    Args:
        when: The day and the part of the day that the caller named, for instance "tomorrow morning".
    """
    context.disallow_interruptions()
    appointment = Appointment(ticket=str(FIRST_TICKET + len(_appointments)), when=when)
    _appointments.append(appointment)
    return f"A technician comes {when}. Your ticket number is {spelled(appointment.ticket)}."


@function_tool
async def ticket_status() -> str:
    """The caller's last ticket: its number, and when the technician comes."""
    if not _appointments:
        return "There is no open ticket."
    last = _appointments[-1]
    return f"Your ticket number is {spelled(last.ticket)}. The technician comes {last.when}."


def spelled(ticket: str) -> str:
    """A number digit by digit, as it is read out."""
    return " ".join(ticket)


TOOLS = (check_line, check_outage, book_technician, ticket_status, to_billing, to_receptionist)
