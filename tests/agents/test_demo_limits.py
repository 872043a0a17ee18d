"""The scenario `limits` as a person runs it: providers refuse without the limiter, and never with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_the_limiter_spares_the_providers_and_every_tenant_gets_its_part(tmp_path: Path) -> None:
    file = tmp_path / "report.json"

    done = subprocess.run(
        [sys.executable, "-m", "agents", "demo", "--scenario", "limits", "--report", str(file)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    told = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, told
    report = json.loads(file.read_text())
    tenants = report["tenants"]
    assert report["ok"] is True
    assert report["provider_429"]["with"] == 0
    assert report["provider_429"]["without"] > 0
    assert set(tenants) == {"gold", "silver", "bronze"}
    assert all(each["admitted"] > 0 and each["waited"] > 0 for each in tenants.values()), told
    assert tenants["gold"]["share"] > max(tenants["silver"]["share"], tenants["bronze"]["share"])
    assert tenants["bronze"]["refused"] == 1, "one of its four calls finds no free line"
