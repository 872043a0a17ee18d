"""What billing can do: explain an invoice, tell the balance, ask for a refund."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from livekit.agents import RunContext, function_tool

from agents.account import account_of, day_of, month_of
from agents.handoffs import to_receptionist, to_technical
from coordination.persistence import Invoice


def money(cents: int) -> str:
    """An amount as it is spoken: "64 euros and 90 cents"."""
    euros, rest = divmod(cents, 100)
    return f"{euros} euros and {rest} cents" if rest else f"{euros} euros"


def explanation(invoices: Sequence[Invoice]) -> str:
    """The newest invoice, item by item, and how it differs from the one before."""
    last = invoices[0]
    items = ", and ".join(f"{money(item.cents)} for {item.text}" for item in last.items)
    return (
        f"Your {month_of(last)} invoice is {money(last.cents)}. That is {items}. {_compared(last, invoices[1:])}"
        f"The amount will be taken from your account on {day_of(last.due_on)}, and you need not do anything."
    )


def _compared(last: Invoice, earlier: Sequence[Invoice]) -> str:
    if not earlier:
        return ""
    before = earlier[0]
    difference = [item.text for item in last.items if item not in before.items]
    reason = f"so the difference is {' and '.join(difference)}" if difference else "so nothing has changed"
    return f"The {month_of(before)} invoice was {money(before.cents)}, {reason}. "


def balance(invoices: Sequence[Invoice]) -> str:
    """What is owed, and until when."""
    owed = [invoice for invoice in invoices if invoice.status == "open"]
    if not owed:
        return "Your balance is zero. There is nothing to pay."
    due = min(invoice.due_on for invoice in owed)
    return f"Your balance is {money(sum(invoice.cents for invoice in owed))}. It is due on {day_of(due)}."


@function_tool
async def explain_invoice(context: RunContext[Any]) -> str:
    """Explain the caller's newest invoice: what is on it, and how it differs from the one before."""
    return explanation(await account_of(context).invoices())


@function_tool
async def account_balance(context: RunContext[Any]) -> str:
    """What the caller owes now, and until when it is to be paid."""
    return balance(await account_of(context).invoices())


@function_tool
async def request_refund(context: RunContext[Any]) -> str:
    """Ask for a refund of what was charged too much. Only after the caller has agreed to it."""
    await account_of(context).open_ticket(context, "refund", "The caller asks for a refund of the last invoice.")
    return "I have asked for a refund. You will hear from us within three working days."


TOOLS = (explain_invoice, account_balance, request_refund, to_technical, to_receptionist)
