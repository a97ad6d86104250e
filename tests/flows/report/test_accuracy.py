"""Which other runs a report shows, and in which order."""

from typing import Any

import pytest

from flows.report import accuracy
from flows.runner.lookup import RunView


def view(name: str, values: dict[str, float], store: Any = None) -> RunView:
    run = RunView(name, store, {}, {})
    object.__setattr__(run, "values_by_stratum", {"all": {("macro", key): {"value": v} for key, v in values.items()}})
    return run


def test_the_best_is_first_by_full_ndcg_or_else_by_auc(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {
        "a": view("a", {"full_ndcg@20": 0.1, "auc": 0.9}),
        "b": view("b", {"full_ndcg@20": 0.3, "auc": 0.6}),
        "c": view("c", {"auc": 0.2}),
        "d": view("d", {}),
        "me": view("me", {"full_ndcg@20": 0.2}),
    }
    monkeypatch.setattr(accuracy, "_find_comparable", lambda _view, name: runs[name])
    found, notes = accuracy._find_comparable_runs(runs["me"], sorted(runs))
    assert [run.name for run in found] == ["b", "c", "a", "d"]
    assert notes == []
