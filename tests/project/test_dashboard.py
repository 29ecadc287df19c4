"""The Grafana dashboard, checked without a Grafana."""

from __future__ import annotations

import pytest

from tests import dashboard


def test_every_query_is_promql() -> None:
    queries = dashboard.queries()
    assert len(queries) > 30
    for query in queries:
        assert dashboard.selected(query), query
        assert "$" not in query, query


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard.panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]


def test_panels_are_told_apart() -> None:
    ids = [panel["id"] for panel in dashboard.panels()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("query", ["sum by (model (x)", "rate(x)", "nonsense y"])
def test_invalid_promql_is_found(query: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        dashboard.selected(query)
