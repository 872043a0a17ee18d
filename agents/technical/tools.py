"""What technical support can do: measure the line, look for outages, send a technician. The line is made up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from livekit.agents import RunContext, function_tool

from agents.account import account_of
from agents.handoffs import to_billing, to_receptionist

TECHNICIAN = "technician"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a measurement of the caller's line shows."""

    drops: int
    signal: str


LINE = Line(drops=14, signal="weak")


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
    subject = f"A technician comes {when}."
    ticket = await account_of(context).open_ticket(context, TECHNICIAN, subject, when=when)
    return f"{subject} Your ticket number is {spelled(ticket.number)}."


@function_tool
async def ticket_status(context: RunContext[Any]) -> str:
    """The caller's last ticket: its number, and when the technician comes."""
    tickets = await account_of(context).tickets(TECHNICIAN)
    if not tickets:
        return "There is no open ticket."
    return f"Your ticket number is {spelled(tickets[0].number)}. {tickets[0].subject}"


def spelled(ticket: int) -> str:
    """A number digit by digit, as it is read out."""
    return " ".join(str(ticket))


TOOLS = (check_line, check_outage, book_technician, ticket_status, to_billing, to_receptionist)
