"""The tools with which agents hand the caller over to each other.

The binding is looked up when a tool is called: an agent that hands nobody over can import its tools without Redis.
"""

from __future__ import annotations

from typing import Any, Literal

from livekit.agents import RunContext, function_tool

import coordination.livekit as binding

Topic = Literal["invoice", "balance", "refund", "line", "outage", "technician", "question"]


@function_tool
async def to_billing(context: RunContext[Any], summary: str, topic: Topic = "question") -> str | None:
    """Hand the caller over to billing: invoices, charges, balances, refunds.

    Args:
        summary: What the caller wants and what was said so far, in one or two sentences.
        topic: What it is mainly about.
    """
    return await binding.handoff_to(
        context,
        "billing",
        summary=summary,
        facts={"topic": topic},
        announce="One moment please, I am connecting you with billing.",
    )


@function_tool
async def to_technical(context: RunContext[Any], summary: str, topic: Topic = "question") -> str | None:
    """Hand the caller over to technical support: connection, router, outages, technicians.

    Args:
        summary: What the caller wants and what was said so far, in one or two sentences.
        topic: What it is mainly about.
    """
    return await binding.handoff_to(
        context,
        "technical",
        summary=summary,
        facts={"topic": topic},
        announce="One moment please, I am connecting you with technical support.",
    )


@function_tool
async def to_receptionist(context: RunContext[Any], summary: str, topic: Topic = "question") -> str | None:
    """Hand the caller back to the reception: general questions, opening hours, or when the caller asks for it.

    Args:
        summary: What was done for the caller, and what is still open, in one or two sentences.
        topic: What it was mainly about.
    """
    return await binding.handoff_to(
        context,
        "receptionist",
        summary=summary,
        facts={"topic": topic},
        announce="One moment please, I am taking you back to the reception.",
    )
