"""Voices of the speech synthesiser, and the ones that the test kit uses.

A voice is a name from espeak-ng's list plus a few numbers. The presets differ enough that a person
tells the speakers of a recording apart, and the caller's is the one that pocketsphinx reads best.
"""

from dataclasses import dataclass
from enum import Enum


class Engine(Enum):
    """What turns text into sound."""

    ESPEAK = "espeak"
    """espeak-ng out of the `espeakng-loader` wheel: works wherever the wheel installs."""
    FLITE = "flite"
    """The `flite` program, where it is on the PATH. Never needed, sometimes nicer to hear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """How somebody sounds.

    `name` is an espeak-ng language ("en-us", "en-gb-x-rp") or a flite voice ("slt"); `variant` one of
    espeak-ng's voice variants ("f3", "m2", "Andy"), empty for the plain voice. `rate` is in words a
    minute (80 to 450), `pitch` and `pitch_range` go from 0 to 99, `word_gap` is the extra pause between
    words in units of 10 ms.
    """

    name: str = "en-us"
    variant: str = ""
    pitch: int = 50
    pitch_range: int = 50
    rate: int = 165
    word_gap: int = 0
    engine: Engine = Engine.ESPEAK

    @property
    def full_name(self) -> str:
        """The name as espeak-ng wants it: language and variant in one."""
        return f"{self.name}+{self.variant}" if self.variant else self.name


CALLER = Voice(name="en-us", variant="f5", pitch=45, rate=140)
"""Of 38 espeak-ng voices the one that pocketsphinx reads best, also after Opus: with a language model of the
domain about one word in twenty of unseen sentences is wrong, with its general model about one in two."""
RECEPTIONIST = Voice(name="en-us", variant="f2", pitch=60, rate=165)
"""The agents' voices are easily told apart by ear, and among those that the kit's reader understands."""
BILLING = Voice(name="en-gb-x-rp", variant="m6", pitch=35, rate=155)
TECHNICAL = Voice(name="en-us", variant="adam", pitch=25, rate=155)

PRESETS = {"caller": CALLER, "receptionist": RECEPTIONIST, "billing": BILLING, "technical": TECHNICAL}
