"""What the report explains: terms, a sentence for each section, times, popularity as a reference, collapsing maps."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_world import random_log

from data_contracts.contracts import HISTORY_STRATA, ITEM
from flows.config.run_config import load_config
from flows.output.plots import Series, line_plot
from flows.report.accuracy import accuracy_sections
from flows.report.blocks import Note
from flows.report.data import data_section, describe_time
from flows.report.html import as_html, write_report
from flows.report.pairs import pairs_section
from flows.report.results import _explain_spread, training_section
from flows.report.terms import TERMS, explain_terms
from flows.runner.execute import run_stages
from flows.runner.lookup import RunView, find_run

RUN = """
name = "{name}"
[[logs]]
path = "log.csv"
columns = {{ domain = "domain", timestamp = "time" }}
[train]
width = 8
epochs = 3
{train}
[evaluate]
resamples = 20
{more}
"""
RUNS = {
    "r": ("alignment = 0.3", ""),
    "apart": ('tables = "intra"', '[neighbours]\nscope = "domain"'),
    "most-read": ('model = "popularity"', "[blend]\nevidence = false"),
}
NDCG = "full_ndcg@20"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run, one that knows each domain alone, and one by popularity, on the same log of two days."""
    folder = tmp_path_factory.mktemp("explained")
    log = random_log(1, {"books": (30, 20, 260), "films": (16, 14, 120)})
    rows = [
        f"{user},{item},{domain},{1_700_000_000 + 86_400 * (number % 2)}"
        for domain in log
        for number, (user, item, _) in enumerate(log[domain])
    ]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,domain,time", *rows]) + "\n")
    for name, (train, more) in RUNS.items():
        (folder / f"{name}.toml").write_text(RUN.format(name=name, train=train, more=more))
        run_stages(load_config(folder / f"{name}.toml", [f"store={json.dumps(str(folder / 'store'))}"]))
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> RunView:
    return find_run("r", str(folder / "store"))


def lead(page: str, section: str) -> str:
    """The sentence that a section begins with, as plain text."""
    found = re.search(rf'<h2>{section}</h2>\s*<p class="lead">(.*?)</p>', page, re.DOTALL)
    assert found, section
    return html.unescape(re.sub(r"</?abbr[^>]*>", "", found[1]))


def test_every_section_begins_with_one_sentence(run: RunView) -> None:
    page = as_html(run)
    for section in re.findall("<h2>(.*?)</h2>", page):
        sentence = lead(page, section)
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".")
        assert not re.search(r"\. [A-Z]", sentence)


def test_the_data_are_told_with_their_time_and_what_ties_them(run: RunView) -> None:
    table = run.artifacts["interactions"].read(["domain", "user_id", "item_id"]).to_pylist()
    shared = {
        kind: len(both) / len(either)
        for kind in ("user", ITEM)
        for names in [[{row[f"{kind}_id"] for row in table if row["domain"] == name} for name in ("books", "films")]]
        for both, either in [(names[0] & names[1], names[0] | names[1])]
    }
    section = data_section(run)
    assert section.lead == (
        f"2 domains have {len(table)} interactions of {len({row['user_id'] for row in table})} users with "
        f"{len({row['item_id'] for row in table})} items from 2023-11-14 to 2023-11-15; {shared['user']:.0%} of the "
        f"users and {shared['item']:.0%} of the items live in more than one domain."
    )
    assert [row[-2:] for row in section.blocks[0].rows] == [("2023-11-14", "2023-11-15")] * 2


@pytest.mark.parametrize(
    ("ticks", "shown"),
    [
        (1_700_000_000, "2023-11-14"),
        (1_700_000_000_000, "2023-11-14"),
        (1_700_000_000_000_000, "2023-11-14"),
        (1_700_000_000_000_000_000, "2023-11-14"),
        (41, "41"),
        (-5, "-5"),
        (20_231_114, "20,231,114"),
    ],
)
def test_times_are_dates_in_whichever_unit_and_other_numbers_stay_numbers(ticks: int, shown: str) -> None:
    assert describe_time(ticks) == shown


def test_popularity_is_a_row_of_every_table_of_the_runs_metrics(run: RunView, folder: Path) -> None:
    popularity = find_run("most-read", str(folder / "store"))
    accuracy, strata = accuracy_sections(run, [])  # it is there even where no other run is wanted
    metrics, lists = accuracy.blocks[0], accuracy.blocks[2]
    auc = popularity.values["macro", "auc"]
    assert metrics.rows[-1][0] == lists.rows[-1][0] == "popularity, mean"
    assert metrics.rows[-1][2] == f"{auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f})"
    assert lists.rows[-1][1] == f"{popularity.values['macro', 'coverage@20']['value']:.1%}"
    means, domains = strata.blocks[0], strata.blocks[3]
    for stratum, *_, last in means.rows:
        assert last == f"{popularity.values_by_stratum[stratum]['macro', NDCG]['value']:.3f}"
    assert means.header[-1] == f"popularity: {NDCG}"
    assert domains.rows[-1][0] == "popularity, mean"


def test_without_a_popularity_run_the_report_says_how_to_make_one(
    run: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.report.accuracy.ranks_by_popularity", lambda _config: False)
    monkeypatch.setattr("flows.report.accuracy.find_popularity", lambda _runs: None)
    page = as_html(run)
    assert "--baselines popularity" in page
    assert "popularity, mean" not in page


def test_who_gains_is_told_beside_the_run_of_each_domain_alone(run: RunView, folder: Path) -> None:
    alone = find_run("apart", str(folder / "store"))
    gains = {domain: run.values[domain, NDCG]["value"] - alone.values[domain, NDCG]["value"] for domain in run.sizes}
    mean = run.values["macro", NDCG]["value"] - alone.values["macro", NDCG]["value"]
    most, least = max(gains, key=gains.__getitem__), min(gains, key=gains.__getitem__)
    sentence = lead(as_html(run), "Who gains")
    gained = f"gains {mean:+.3f} on average (beside apart, which knows each domain alone)"
    ends = f"most in {most} ({gains[most]:+.3f}), least in {least} ({gains[least]:+.3f})"
    assert sentence.startswith(f"From the other domains {NDCG} {gained}: {ends}; by history most where users have ")
    histories = {
        name: run.values_by_stratum[name]["macro", NDCG]["value"]
        - alone.values_by_stratum[name]["macro", NDCG]["value"]
        for name in HISTORY_STRATA
        if name in run.values_by_stratum
    }
    best = max(histories, key=histories.__getitem__)
    assert sentence.endswith(f"{best.removeprefix('history ')} train rows ({histories[best]:+.3f}).")


def test_coverage_and_popularity_bias_are_those_of_lists_and_train_rows(run: RunView) -> None:
    bias = {}
    for domain in run.sizes:
        nodes = run.artifacts["nodes"].read(["kind", "train_degree"], domain=domain).to_pylist()
        degrees = [row["train_degree"] for row in nodes if row["kind"] == ITEM]
        chosen = sum(degree * degree for degree in degrees) / sum(degrees)  # of the item of a train row
        bias[domain] = run.values[domain, "popularity@20"]["value"] / chosen
    (note,) = [block.text for block in accuracy_sections(run, [])[0].blocks if "Popularity bias" in str(block)]
    assert f"shown is {sum(bias.values()) / 2:.2f} ({min(bias.values()):.2f} in " in note


def test_collapsing_maps_are_named_as_such() -> None:
    assert "Here the maps collapse: the spread falls from 0.25 to 0.004." in _explain_spread(0.25, 0.004)
    assert "Here they do not: the spread is 0.2 in the last epoch, 0.25 at its largest." in _explain_spread(0.25, 0.2)


def test_the_note_on_the_maps_stands_where_maps_are_trained(run: RunView, folder: Path) -> None:
    apart = find_run("apart", str(folder / "store"))
    notes = [[block.text for block in training_section(one).blocks if isinstance(block, Note)] for one in (run, apart)]
    assert [len(texts) for texts in notes] == [1, 0]
    assert notes[0][0].startswith("Spread of mapped vectors: ")


def test_a_run_that_does_not_align_says_why_it_has_no_pairs(run: RunView, folder: Path) -> None:
    for view, says_why in ((run, False), (find_run("apart", str(folder / "store")), True)):
        some = {role: artifact for role, artifact in view.artifacts.items() if role not in ("reach", "pairs")}
        notes = [block.text for block in pairs_section(replace(view, artifacts=some)).blocks]
        assert [text.startswith("This run has neither, because it does not align") for text in notes] == [
            True
        ] * says_why


def test_a_report_is_no_folder(run: RunView, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{tmp_path}: is a folder, must be a file"):
        write_report(run, tmp_path)


def test_the_mean_over_domains_has_one_name(run: RunView) -> None:
    """Its meaning stands where a reader points at the name, and in the list of terms."""
    page = as_html(run)
    meaning = re.escape(TERMS["macro"])
    assert re.search(rf'<abbr title="{meaning}">macro</abbr>', page)
    text = html.unescape(re.sub(r"</?abbr[^>]*>", "", page).replace(TERMS["macro"], ""))
    assert text.count("over domains") == text.count("macro, the mean over domains: ") == 1
    legends = re.findall(r'class="legend">(.*?)</ul>', page, re.DOTALL)
    assert len([legend for legend in legends if "macro" in legend]) >= 2


def test_terms_are_explained_where_they_stand_and_at_the_end(run: RunView) -> None:
    page = as_html(run)
    meaning = "quality of the 20 first items: 1 if what the user chose is on top, less the further down, 0 if absent"
    assert f'<abbr title="{meaning}">NDCG@20</abbr>' in page
    assert all(f"<dt>{term}</dt>" in page for term in TERMS)


@pytest.mark.parametrize("text", ["coverage@all", "my-seed", "x.cold.y", "reaches", "<b>AUC</b>", "blend.evidence"])
def test_only_whole_words_are_terms_and_text_stays_text(text: str) -> None:
    explained = str(explain_terms(text))
    assert html.unescape(re.sub(r"</?abbr[^>]*>", "", explained)) == text
    assert ("<abbr" in explained) == ("AUC" in text)
    assert "<b>" not in explained


def labels(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_log_axes_are_labelled_by_plain_numbers() -> None:
    svg = line_plot("t", ("x", "y"), [Series(([1, 10, 5_000], [40, 20, 1]), 0)], scale="log")
    ticks = labels(svg)
    assert ticks[: ticks.index("x")] == ["1", "10", "100", "1,000"]
    assert ticks[ticks.index("x") + 1 : ticks.index("y")] == ["1", "2", "5", "10", "20"]


@pytest.mark.parametrize(
    ("epochs", "shown"), [(range(1, 41), ["1", "5", "10"]), (range(5), ["0", "1", "2"]), (range(1, 2), ["1"])]
)
def test_epochs_begin_where_training_does(epochs: range, shown: list[str]) -> None:
    svg = line_plot("t", ("epoch", "y"), [Series((list(epochs), [0.5] * len(epochs)), 0)])
    assert labels(svg)[: len(shown)] == shown
