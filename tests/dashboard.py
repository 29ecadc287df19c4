"""The queries of the Grafana dashboard."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser

DASHBOARD = Path(__file__).parents[1] / "contrib/grafana/mmd.json"
_JOB = {"job", "instance"}  # added to every sample by Prometheus


def panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return panels


def queries() -> list[str]:
    """Return the queries as Grafana sends them."""
    written = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    return [query.replace("$__rate_interval", "1m").replace("$model", ".*") for query in written]


def selected(query: str) -> dict[str, set[str]]:
    """Return the metrics that a query reads, with the labels by which it selects and groups them. Raises ValueError if
    it is not PromQL.
    """
    found: dict[str, set[str]] = {}
    grouping: set[str] = set()

    def visit(expression: Any) -> None:
        selector = expression.vector_selector if isinstance(expression, promql_parser.MatrixSelector) else expression
        if isinstance(selector, promql_parser.VectorSelector) and selector.name:
            labels = found.setdefault(selector.name, set())
            labels.update(matcher.name for matcher in selector.matchers.matchers if matcher.name not in _JOB)
        elif isinstance(expression, promql_parser.AggregateExpr) and expression.modifier:
            grouping.update(expression.modifier.labels)

    promql_parser.walk(promql_parser.parse(query), visit)
    return {name: labels | grouping for name, labels in found.items()}


def names(prefix: str) -> set[str]:
    """Return the metrics that the dashboard reads, with their labels."""
    return {name for query in queries() for name in selected(query) if name.startswith(prefix)}


def legend_labels() -> set[str]:
    legends = [target["legendFormat"] for panel in panels() for target in panel.get("targets", ())]
    return {label for legend in legends for label in re.findall(r"{{(\w+)}}", legend)}
