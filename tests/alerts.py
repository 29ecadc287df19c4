"""The queries of the Prometheus alerts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ALERTS = Path(__file__).parents[1] / "contrib/prometheus/mmd-alerts.yml"


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    return [rule["expr"] for rule in rules()]
