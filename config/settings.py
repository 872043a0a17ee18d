"""The reference application's settings, typed: `agents.yaml` plus provider keys from the environment.

`load_settings` checks everything at once: a person who configures sees all faults in one go, each with its place.
What concerns coordination itself (Redis, policies, limits) is `coordination.settings`; LiveKit reads its own variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from coordination.errors import InvalidSettings

AGENTS_FILE = Path(__file__).with_name("agents.yaml")

Seconds = Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(minutes=1))]
Sentence = Annotated[str, Field(min_length=1, max_length=300)]


class Role(StrEnum):
    """The agents of the reference application; the value is LiveKit's `agent_name`."""

    RECEPTIONIST = "receptionist"
    BILLING = "billing"
    TECHNICAL = "technical"


class ProviderChoice(StrEnum):
    """Which speech and language providers the agents use."""

    AUTO = "auto"
    """A real one for each part whose key is set, the offline one for the others."""
    OFFLINE = "offline"
    """The offline ones, whatever keys there are."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgentSettings(_Strict):
    """One agent."""

    greeting: Sentence
    """Said when a call begins with this agent; never in mid-conversation."""
    elevenlabs_voice: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{10,40}$")]


class Team(_Strict):
    """One entry for each role."""

    receptionist: AgentSettings
    billing: AgentSettings
    technical: AgentSettings

    def of(self, role: Role) -> AgentSettings:
        return cast(AgentSettings, getattr(self, role.value))


class ModelSettings(_Strict):
    """The models of the real providers."""

    deepgram: Annotated[str, Field(min_length=1)]
    openai: Annotated[str, Field(min_length=1)]
    elevenlabs: Annotated[str, Field(min_length=1)]


class TurnSettings(_Strict):
    """When the caller's turn is over, and when an agent lets itself be interrupted. In seconds."""

    silence: Seconds
    """Silence after speech that ends a stretch of speech."""
    end_of_turn: Seconds
    """Silence after which the agent answers, at the earliest."""
    end_of_turn_at_most: Seconds
    """Silence after which it answers even if the sentence seems unfinished."""
    interruption: Seconds
    """Speech of the caller that counts as an interruption."""


def _says_place(sentence: str) -> str:
    try:
        said = sentence.format(place=7)
    except (LookupError, ValueError):
        raise ValueError("write {place} where the number is said, and no other braces") from None
    if said == sentence:
        raise ValueError("write {place} where the number is said")
    return sentence


class LineSettings(_Strict):
    """What becomes of a call whose tenant has no free line. The same for all workers."""

    when_full: Literal["reject", "announce", "queue"]
    busy: Sentence
    """Said to a caller who is not taken."""
    place: Annotated[Sentence, AfterValidator(_says_place)]
    """Said to a caller who waits, whenever the place changes."""
    patience: Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(hours=1))]
    """How long a caller waits at most. In seconds."""


class ApplicationSettings(BaseSettings):
    """Everything that the reference application can be told. Made by `load_settings`."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_ignore_empty=True, case_sensitive=True)

    agents: Team
    models: ModelSettings
    lines: LineSettings
    turns: TurnSettings

    providers: ProviderChoice = Field(default=ProviderChoice.AUTO, validation_alias="BATON_PROVIDERS")
    deepgram_api_key: SecretStr | None = Field(default=None, validation_alias="DEEPGRAM_API_KEY")
    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    eleven_api_key: SecretStr | None = Field(default=None, validation_alias="ELEVEN_API_KEY")

    def key(self, name: str) -> str | None:
        """The key of a provider ("deepgram", "openai", "eleven") if it is set and may be used."""
        if self.providers is ProviderChoice.OFFLINE:
            return None
        secret = cast(SecretStr | None, getattr(self, f"{name}_api_key"))
        return secret.get_secret_value() if secret is not None else None


def load_settings(file: Path = AGENTS_FILE) -> ApplicationSettings:
    """Reads `file` and the environment.

    Raises `InvalidSettings`, whose text lists all faults: each with the file and the place in it, or with the name of
    the environment variable. Values are shown for the file, never for the environment: they could be keys.
    """
    content = _read(file)
    try:
        return ApplicationSettings(**content)
    except ValidationError as error:
        faults = [_fault(file, cast(Mapping[str, Any], each)) for each in error.errors(include_url=False)]
        raise InvalidSettings(_list(faults)) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        content: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings(_list([f"{file.name} cannot be read: {error.strerror}"])) from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        problem = getattr(error, "problem", None) or "it is no YAML"
        raise InvalidSettings(_list([f"{file.name}{line}: {problem}"])) from None
    if not isinstance(content, dict):
        raise InvalidSettings(_list([f"{file.name} must hold a mapping (agents, models, lines, turns)"]))
    return {str(key): value for key, value in cast(dict[object, Any], content).items()}


def _fault(file: Path, error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if place.isupper():
        return f"environment variable {place}: {error['msg']}"
    value = error.get("input")
    shown = "" if error["type"] == "missing" or isinstance(value, dict) else f" (it is {value!r:.60})"
    return f"{file.name}: {place}: {error['msg']}{shown}"


def _list(faults: list[str]) -> str:
    many = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
    return f"The configuration has {many}:\n" + "\n".join(f"  - {fault}" for fault in faults)
