"""A metrics page, parsed by Prometheus's own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.labels: dict[str, set[str]] = {}
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in self.families.values():
            assert family.documentation or ":" in family.name, f"{family.name} is not explained"
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self._values, f"twice: {key}"
                self._values[key] = sample.value
                self.labels.setdefault(sample.name, set()).update(sample.labels)

    def value(self, name: str, /, **labels: str) -> float | None:
        """Return the value of a sample, or None."""
        return self._values.get((name, frozenset(labels.items())))
