"""What callers of an internet provider want, as rules: how it is said, and which tool serves it.

An intent names tools in the order of preference; the first one that the agent at hand has is called. So the same rules
serve every role: "my bill is too high" explains the bill where somebody can, and asks for billing elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from re import Pattern

_BILL = r"\b(bill|bills|invoice|charge|charges|payment|fee|amount|account balance)\b"
_NET = r"\b(internet|connection|wifi|router|modem|line|network|broadband|online)\b"
_BAD = (
    r"\b(not working|no internet|no connection|does not work|stopped working|slow|down|dead|broken|unstable|gone|out|"
    r"offline|drops?|dropping|disconnecting|cuts out|problems?|trouble|wrong|red|blinking|light|lost|not stable|bad|"
    r"unreliable|not connect|not get online|help|fix|repair|does not working)\b"
)
_REACH = r"\b(talk|speak|connect|put|transfer|through|need|want|like|take|bring|give|get|go)\b"
_PERSON = r"\b(technician|engineer|someone|somebody|person)\b"
_PART = r"(?:morning|afternoon|evening)"
_WHEN = re.compile(
    rf"\b((?:today|tomorrow)(?: {_PART})?|tonight|this {_PART}|next week|this week|in the {_PART}"
    rf"|(?:on )?(?:mon|tues|wednes|thurs|fri)day(?: {_PART})?)\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """Something a caller may want.

    `patterns` are searched in the caller's words; any of them is enough. `answer` is said where no tool serves the
    intent (or where it needs none). `needs` names a tool argument without which `ask` is said instead. `confirm` is
    asked before the intent's own tool, the first one, is called: what it does cannot be taken back.
    """

    name: str
    patterns: tuple[Pattern[str], ...] = ()
    tools: tuple[str, ...] = ()
    topic: str = "question"
    answer: str = ""
    needs: str = ""
    ask: str = ""
    confirm: str = ""

    def matches(self, text: str) -> bool:
        return any(pattern.search(text) for pattern in self.patterns)


def _any(*patterns: str) -> tuple[Pattern[str], ...]:
    return tuple(re.compile(pattern) for pattern in patterns)


HERE = "You are at the right place for that. What would you like to know?"
ANYTHING_ELSE = "Is there anything else that I can do for you?"

INTENTS: tuple[Intent, ...] = (
    Intent(
        name="farewell",
        patterns=_any(
            r"\b(that|this) (is|was) (all|everything)\b",
            r"\bnothing else\b",
            r"\b(good ?bye|bye)\b",
            r"^no thank(s| you)$",
        ),
        answer="Thank you for calling. Goodbye.",
    ),
    Intent(
        name="reception",
        patterns=_any(r"\b(reception|receptionist|front desk|main desk|first person)\b"),
        tools=("to_receptionist",),
        answer="You are talking to the reception. How can I help you?",
    ),
    Intent(
        name="billing",
        patterns=_any(r"\b(billing|accounting)\b", rf"{_REACH}.*{_PERSON}.* about my (bill|invoice)\b"),
        tools=("to_billing",),
        topic="invoice",
        answer=HERE,
    ),
    Intent(
        name="technical",
        patterns=_any(
            r"\b(technical|tech) (support|department|team|help)\b",
            r"\b(the support team|someone technical|somebody technical)\b",
            r"\b(talk|speak|connect|put|transfer)\b.*\b(technician|engineer|technical|support)\b",
        ),
        tools=("to_technical",),
        topic="line",
        answer=HERE,
    ),
    Intent(
        name="technician",
        patterns=_any(
            rf"\b(send|book|come|visit|need|have|appointment|arrange)\b.*{_PERSON}",
            rf"{_PERSON}.*\b(come|visit|send)\b",
            r"\b(when can you come|arrange a visit|to my house)\b",
        ),
        tools=("book_technician", "to_technical"),
        topic="technician",
        needs="when",
        ask="When would it suit you, tomorrow morning or tomorrow afternoon?",
    ),
    Intent(
        name="ticket",
        patterns=_any(r"\bticket\b"),
        tools=("ticket_status", "to_technical"),
        topic="technician",
    ),
    Intent(
        name="outage",
        patterns=_any(r"\boutage\b", r"\bin my area\b"),
        tools=("check_outage", "to_technical"),
        topic="outage",
    ),
    Intent(
        name="refund",
        patterns=_any(r"\b(refund|money back|charged? (me )?(twice|too much)|paid (twice|too much))\b"),
        tools=("request_refund", "to_billing"),
        topic="refund",
        confirm="I am sorry about that. Shall I ask for a refund?",
    ),
    Intent(
        name="balance",
        patterns=_any(
            r"\b(balance|owe)\b", r"\bhow much (do|is|was)\b", r"\b(have to pay|payment due|bill due|invoice due)\b"
        ),
        tools=("account_balance", "to_billing"),
        topic="balance",
    ),
    Intent(
        name="invoice",
        patterns=_any(_BILL, r"\bwhy (is|was) it so (high|expensive|much)\b", r"\bpay(ing)? so much\b"),
        tools=("explain_invoice", "to_billing"),
        topic="invoice",
    ),
    Intent(
        name="line",
        patterns=_any(
            rf"{_NET}.*{_BAD}",
            rf"{_BAD}.*{_NET}",
            r"\bno (internet|connection)\b",
            rf"\b(check|test|look at|look into|line check|run a)\b.*{_NET}",
            r"\b(line check|run a test)\b",
            r"\b(have|got|with|calling about|about|is about|what about) (a |my |the |this |that |your )?(new )?"
            r"(internet|connection|wifi|router|modem|line|network|broadband)\b",
            r"\b(keeps|keep) (dropping|disconnecting)\b",
        ),
        tools=("check_line", "to_technical"),
        topic="line",
    ),
    Intent(
        name="hours",
        patterns=_any(r"\bopening hours\b", r"\b(are|is) (you|it) open\b"),
        tools=("opening_hours", "to_receptionist"),
    ),
    Intent(
        name="repeat",
        patterns=_any(
            r"\b(repeat that|say that again|what did you say|pardon)\b",
            r"\b(did not (get|understand) that|speak a little slower)\b",
        ),
    ),
    Intent(
        name="presence",
        patterns=_any(
            r"\b(are you (still )?there|can you hear me|is anybody there|i am back|(was|were) cut off)\b",
        ),
        answer="Yes, I am here. What can I do for you?",
    ),
    Intent(
        name="who",
        patterns=_any(r"\b(who are you|who am i talking to)\b"),
        answer="I am an assistant of your internet provider. What can I do for you?",
    ),
    Intent(
        name="number",
        patterns=_any(r"\bnumber is\b", r"^((zero|one|two|three|four|five|six|seven|eight|nine) ?){3,}$"),
        answer="Thank you, I have noted the number. What can I do for you?",
    ),
    Intent(
        name="question",
        patterns=_any(r"\b(question|questions|ask (you )?(a|something))\b", r"\b(help me|what can you do)\b"),
        answer="Of course. Is it about your bill, or about your internet connection?",
    ),
    Intent(
        name="wait",
        patterns=_any(r"^(please )?(stop|wait|hold on|hang on|just a moment|one moment)\b"),
        answer="Of course. I am listening.",
    ),
    Intent(
        name="thanks",
        patterns=_any(r"\b(thank you|thanks)\b"),
        answer=f"You are welcome. {ANYTHING_ELSE}",
    ),
    Intent(
        name="greeting",
        patterns=_any(r"^(hello|hi|good (morning|afternoon|evening))( there)?$"),
        answer="Hello. What can I do for you?",
    ),
)
"""In the order in which they are tried."""

BY_NAME = {intent.name: intent for intent in INTENTS}

YES = re.compile(r"^(yes|yeah|sure|okay|ok|all right|please do|go ahead|of course|that would be)\b")
NO = re.compile(r"^(no|not now)\b")
DECLINE = re.compile(r"^(no|no thanks|no thank you|not now|no not now)$")
"""A no to the question that was just asked, and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A question that an agent asks, and the intent that a yes means."""

    question: Pattern[str]
    intent: str


OFFERS: tuple[Offer, ...] = (
    Offer(question=re.compile(r"go through (it|your invoice|that)[^.]*\?"), intent="invoice"),
    Offer(question=re.compile(r"tell you your balance[^.]*\?"), intent="balance"),
    Offer(question=re.compile(r"(ask for|arrange) (a|the|your) refund[^.]*\?"), intent="refund"),
    Offer(question=re.compile(r"check your line[^.]*\?"), intent="line"),
    Offer(question=re.compile(r"send (you )?a technician[^.]*\?|would it suit you"), intent="technician"),
)

FOLLOW_UP = {
    "explain_invoice": "Does that answer your question?",
    "account_balance": ANYTHING_ELSE,
    "request_refund": ANYTHING_ELSE,
    "check_line": "Shall I send a technician?",
    "check_outage": "Shall I check your line?",
    "book_technician": ANYTHING_ELSE,
    "ticket_status": ANYTHING_ELSE,
    "opening_hours": ANYTHING_ELSE,
}
"""What is said behind the result of a tool."""


def time_in(text: str) -> str | None:
    """The part of the day that the caller names, or None."""
    match = _WHEN.search(text)
    return match.group(1) if match else None
