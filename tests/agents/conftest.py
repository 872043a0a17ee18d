"""What the tests of the reference application share."""

from __future__ import annotations

import pytest

_PROVIDER_VARIABLES = ("BATON_PROVIDERS", "DEEPGRAM_API_KEY", "OPENAI_API_KEY", "ELEVEN_API_KEY")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own keys decide nothing."""
    for name in _PROVIDER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
