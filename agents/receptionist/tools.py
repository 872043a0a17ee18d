"""What the reception can do by itself."""

from __future__ import annotations

from livekit.agents import function_tool

from agents.handoffs import to_billing, to_technical

HOURS = "We are open from Monday to Friday between 8 and 20 hours, and on Saturday until 14 hours."


@function_tool
async def opening_hours() -> str:
    """When the company can be reached."""
    return HOURS


TOOLS = (to_billing, to_technical, opening_hours)
