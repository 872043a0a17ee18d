"""What billing can do: explain an invoice, tell the balance, ask for a refund.

The account is made up and the same for every caller; it lives in the memory of the call's job process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livekit.agents import function_tool

from agents.handoffs import to_receptionist, to_technical


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line of an invoice; the amount in cents."""

    text: str
    cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """What a caller is asked to pay for a month."""

    month: str
    items: tuple[Item, ...]
    due: str

    @property
    def cents(self) -> int:
        return sum(item.cents for item in self.items)


PLAN = Item(text="your plan with 250 megabits", cents=3990)
ROUTER = Item(text="the new router that was sent to you on the third", cents=2500)
INVOICES = (
    Invoice(month="October", items=(PLAN,), due="15 November"),
    Invoice(month="November", items=(PLAN, ROUTER), due="15 December"),
)
"""The oldest first."""


def money(cents: int) -> str:
    """An amount as it is spoken: "64 euros and 90 cents"."""
    euros, rest = divmod(cents, 100)
    return f"{euros} euros and {rest} cents" if rest else f"{euros} euros"


def explanation(invoices: Sequence[Invoice]) -> str:
    """The newest invoice, item by item, and how it differs from the one before."""
    last, before = invoices[-1], invoices[-2]
    items = ", and ".join(f"{money(item.cents)} for {item.text}" for item in last.items)
    difference = [item.text for item in last.items if item not in before.items]
    reason = f"so the difference is {' and '.join(difference)}" if difference else "so nothing has changed"
    return (
        f"Your {last.month} invoice is {money(last.cents)}. That is {items}. "
        f"The {before.month} invoice was {money(before.cents)}, {reason}. "
        f"The amount will be taken from your account on {last.due}, and you need not do anything."
    )


@function_tool
async def explain_invoice() -> str:
    """Explain the caller's newest invoice: what is on it, and how it differs from the one before."""
    return explanation(INVOICES)


@function_tool
async def account_balance() -> str:
    """What the caller owes now, and until when it is to be paid."""
    last = INVOICES[-1]
    return f"Your balance is {money(last.cents)}. It is due on {last.due}."


@function_tool
async def request_refund() -> str:
    """Ask for a refund of what was charged too much. Only after the caller has agreed to it."""
    return "I have asked for a refund. You will hear from us within three working days."


TOOLS = (explain_invoice, account_balance, request_refund, to_technical, to_receptionist)
