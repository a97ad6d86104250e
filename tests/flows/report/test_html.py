"""The report of a run: its figures equal the artifacts', whatever the run has and whatever its ids look like."""

import json
import os
import re
import tomllib
from collections import Counter
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from damage import resigned
from fake_stages import edda, here
from tiny_world import build, random_log

from data_contracts.contracts import BEYOND_ACCURACY, CONTRACTS, STRATA
from data_contracts.store.store import Store
from flows.output.plots import Series, line_plot
from flows.output.tables import WHERE_FROM, metric_values, values_by_stratum
from flows.report.evidence import evidence_section
from flows.report.html import as_html
from flows.report.keep import keep_report
from flows.report.results import provenance_section
from flows.runner.lookup import RunView, find_run, report_path

__all__ = ["here"]


class Page(HTMLParser):
    """A page's tables by caption, rows of cells' text, and all elements' names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[str] = []
        self._caption, self._text = "", ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self._text = "" if tag in ("figcaption", "th", "td") else self._text
        if tag == "tr":
            self.tables[self._caption].append([])

    def handle_endtag(self, tag):
        if tag == "figcaption":
            self._caption = self._text
            self.tables[self._caption] = []
        elif tag in ("th", "td"):
            self.tables[self._caption][-1].append(self._text)

    def handle_data(self, data):
        self._text += data

    def table(self, beginning: str) -> dict[str, dict[str, str]]:
        """First cell → column → cell, of the one table whose caption begins so."""
        (rows,) = [rows for caption, rows in self.tables.items() if caption.startswith(beginning)]
        return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[1:]}


def plain(html: str) -> str:
    """A page without the explanations of terms."""
    return re.sub("</?abbr[^>]*>", "", html)


def test_a_full_run_writes_a_report_and_keeps_it_until_its_record_changes(folder):
    path = report_path(folder / "store", "r")
    path.write_text("kept")
    keep_report("r", Store(folder / "store"))
    assert path.read_text() == "kept"
    record = path.with_name("run.json")
    later = path.stat().st_mtime + 1
    os.utime(record, (later, later))
    keep_report("r", Store(folder / "store"))
    assert "</html>" in path.read_text()


def test_sizes_and_overlap_are_those_of_the_interactions(run):
    page = Page(as_html(run))
    table = run.artifacts["interactions"].read(["domain", "user_id", "split"]).to_pylist()
    users = {domain: {row["user_id"] for row in table if row["domain"] == domain} for domain in run.sizes}
    for domain, own in page.table("Domains").items():
        assert own["interactions"] == str(sum(row["domain"] == domain for row in table))
        assert own["users"] == str(len(users[domain]))
        assert own["test"] == str(sum(row["domain"] == domain and row["split"] == "test" for row in table))
    for here_, own in page.table("Overlap of users").items():
        for there, percent in own.items():
            share = 100 * len(users[here_] & users[there]) / len(users[here_])
            assert percent == ("" if here_ == there else f"{share:.0f}")


def test_an_update_tells_what_it_took_and_from_scratch_there_is_no_such_section(run, updated):
    assert "<h2>Update</h2>" not in as_html(run)
    (rows,) = [rows for caption, rows in Page(as_html(updated)).tables.items() if caption.startswith("Taken from")]
    sizes = {domain: run.artifacts["nodes"].statistics["domains"][domain] for domain in run.sizes}
    taken = {(role, what): tuple(map(int, numbers)) for role, what, *numbers in rows[1:] if role in ("nodes", "reach")}
    assert taken["nodes", "domains"] == (3, 4, 1)
    assert taken["nodes", "users of games"] == (sizes["games"]["users"], sizes["games"]["users"] + 1, 1)
    assert taken["nodes", "items of games"] == (sizes["games"]["items"],) * 2 + (0,)
    assert taken["nodes", "items of toys"] == (0, 1, 1)
    reach = updated.artifacts["reach"].statistics["domains"]
    for domain, of in reach.items():
        assert taken["reach", f"vectors of {domain}"] == (of["copied"], of["nodes"], of["nodes"] - of["copied"])
    (kept,) = [row for row in rows if row[1] == "rows of inter"]
    assert int(kept[2]) < int(kept[3])


def test_a_merged_row_and_rejected_rows_are_counted(run):
    page = Page(as_html(run))
    reasons = Counter(run.artifacts["rejects"].read(["reason"])["reason"].to_pylist())
    assert page.table("Rejected") == {reason: {"rows": str(count)} for reason, count in reasons.items()}
    by_domain = page.table("Domains").values()
    assert sum(int(own["duplicates"]) for own in by_domain) == 1
    assert sum(int(own["cold"]) + int(own["leaked"]) for own in by_domain) == reasons["cold"] + reasons["leaked"]


def test_accuracy_is_the_metrics_and_stands_beside_other_runs_of_the_same_interactions(run, folder):
    page = Page(as_html(run))
    for role, name in ((run, "r"), (find_run("alone", str(folder / "store")), "alone")):
        for (domain, metric), found in metric_values(role.artifacts["metrics"]).items():
            if metric == "auc" and domain != "macro":
                assert page.table(f"{domain}: ")[name]["auc"].split()[0] == f"{found['value']:.4f}"
                if name == "r":
                    own = page.table("Test metrics")[domain]["auc"]
                    assert own == f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"
    assert list(page.table("Test metrics")) == [*reversed(run.sizes), "macro"]


def test_who_gains_shows_the_strata_of_the_metrics_beside_other_runs(run):
    page, metrics = Page(as_html(run)), run.artifacts["metrics"]
    by_stratum = values_by_stratum(metrics)
    table = page.table("By stratum")
    assert list(table) == [stratum for stratum in STRATA if stratum in by_stratum]
    for stratum, row in table.items():
        mean = by_stratum[stratum]["macro", "full_ndcg@20"]
        assert row["full_ndcg@20"] == f"{mean['value']:.3f} ({mean['low']:.3f}–{mean['high']:.3f})"
        assert (int(row["users"]), int(row["rows"])) == (mean["users"], mean["rows"])
    by_domain = page.table("By domain and stratum")
    assert list(by_domain) == list(reversed(run.sizes))
    for domain, row in by_domain.items():
        for stratum in table:
            mean = by_stratum[stratum].get((domain, "full_ndcg@20"))
            assert row[stratum] == ("–" if mean is None else f"{mean['value']:.3f}")
    assert set(page.table("full_ndcg@20 by the user")) == {"r", "alone"}


def test_what_is_recommended_stands_beside_accuracy_not_in_it(run):
    page, values = Page(as_html(run)), metric_values(run.artifacts["metrics"])
    lists = page.table("What is recommended: the 20 best items of each test user, by domain")
    for domain, row in lists.items():
        place = domain
        assert row["coverage@20"] == f"{values[place, 'coverage@20']['value']:.1%}"
        assert row["popularity@20"] == f"{values[place, 'popularity@20']['value']:,.1f}"
    assert not set(BEYOND_ACCURACY) & set(page.table("Test metrics by domain")["macro"])


def test_the_blend_of_each_domain_stands_beside_vectors_alone_and_evidence_alone(run):
    table = Page(as_html(run)).table("Full NDCG@20 on the validation split")
    assert list(table) == list(run.sizes)
    blends = run.artifacts["blend-2022"].read().to_pylist()
    for domain, row in table.items():
        tried = {blend["share"]: blend for blend in blends if blend["domain"] == domain}
        (chosen,) = [blend for blend in tried.values() if blend["chosen"]]
        assert row["users"] == str(chosen["users"])
        assert row["share of evidence"] == f"{chosen['share']:.2f}"
        shown = [row[name] for name in ("vectors alone", "evidence alone", "blend")]
        assert shown == [f"{blend['full_ndcg@20']:.4f}" for blend in (tried[0.0], tried[1.0], chosen)]


def test_a_curve_is_drawn_for_each_domain_and_its_seeds_and_the_smaller_ones_are_folded(store: Store):
    columns = {"share": [0.0, 0.5, 1.0], "vectors": [1.0, 1.0, 0.0], "evidence": [0.0, 1.0, 1.0], "spread": [1.0] * 3,
               "growth": [0.5] * 3, "full_ndcg@20": [0.1, 0.3, 0.2], "full_recall@20": [0.1, 0.3, 0.2],
               "users": [9] * 3, "chosen": [False, True, False]}  # fmt: skip
    names = [f"d{number:02}" for number in range(40)]
    table = pa.concat_tables(
        [pa.table({"domain": [name] * 3, **columns}, CONTRACTS["blend"].file_schema) for name in names]
    )
    write = lambda draft: draft.write(table)  # noqa: E731
    blends = {f"blend-{seed}": store.make(CONTRACTS["blend"], {"seed": seed}, {}, write) for seed in (1, 2)}
    log = {name: [("u", f"i{n}", "train") for n in range(40 - place)] for place, name in enumerate(names)}
    section = evidence_section(RunView("many", store, {}, {**build(store, log).parents, **blends}, {}))
    table, _, plots, folded = section.blocks
    assert [row[0] for row in table.rows] == names
    assert table.rows[0][1:] == ("9", "0.50", "0.1000", "0.2000", "0.3000")
    assert (len(plots.svgs), len(folded.blocks[0].svgs), list(plots.legend)) == (4, 26, ["seed 1", "seed 2"])


def test_where_scores_come_from_stands_apart_from_accuracy(run):
    page = Page(as_html(run))
    header, *rows = page.tables[WHERE_FROM]
    values = metric_values(run.artifacts["metrics"])
    assert header == ["domain", "inter", "intra", "evidence"]
    for domain, *shares in rows:
        place = domain
        assert shares == [f"{values[place, f'share_{part}']['value']:.0%}" for part in header[1:]]
    assert not any(name.startswith("share") for name in page.table("Test metrics")["macro"])


def test_a_run_without_evidence_says_so(run):
    roles = {role: found for role, found in run.artifacts.items() if not role.startswith("blend")}
    config = run.config | {"blend": {"evidence": False}}
    assert "ranks by vectors alone" in plain(as_html(RunView(run.name, run.store, config, roles, {})))


def test_curves_are_named_after_the_score_that_selects(run):
    html = plain(as_html(run))
    assert "validation score: full_ndcg@20" in html
    assert "Validation full NDCG@20</text>" in html


def test_a_run_that_this_version_cannot_read_is_left_out(run, folder):
    manifest = find_run("alone", str(folder / "store")).artifacts["metrics"].path / "manifest.json"
    before = manifest.read_text()
    manifest.write_bytes(resigned(before.encode(), version=1))
    try:
        assert "no other evaluated run" in as_html(run)
    finally:
        manifest.write_text(before)


def test_the_runs_that_it_is_compared_with_are_chosen_by_name(run):
    assert "no other evaluated run" in as_html(run, [])
    captions = Page(as_html(run, ["alone"])).tables.keys()
    assert any("alone" in caption or caption.startswith("books") for caption in captions)
    assert "no other evaluated run" not in as_html(run, ["alone"])
    assert as_html(run, ["alone", "alone"]) == as_html(run, ["alone"])
    with pytest.raises(FileNotFoundError, match="run 'alonee' is not in"):
        as_html(run, ["alonee"])


@pytest.mark.parametrize("file", ["metrics/manifest.json", "metrics/part-00000.parquet", "ranks/part-00000.parquet"])
def test_damaged_metrics_of_another_run_are_named_and_left_out(run, folder, file, caplog):
    role, name = file.split("/")
    damaged = find_run("alone", str(folder / "store")).artifacts[role].path
    before = (damaged / name).read_bytes()
    (damaged / name).write_bytes(before[: len(before) // 2])
    try:
        page = as_html(run)
    finally:
        (damaged / name).write_bytes(before)
    assert "no other evaluated run" in page
    assert "Run alone is left out: " in page
    assert str(damaged) in caplog.text


def test_example_pairs_are_pairs_and_name_anchors_that_both_reach(run):
    nodes = run.artifacts["nodes"].read(["domain", "kind", "node", "id", "is_anchor"]).to_pylist()
    node = {(row["domain"], row["kind"], row["id"]): row["node"] for row in nodes}
    anchors = {f"{row['kind']} {row['id']}" for row in nodes if row["is_anchor"]}
    ends = ("source_domain", "target_domain", "source_node", "target_node")
    first = [row for row in run.artifacts["pairs"].read().to_pylist() if row["rank"] == 1]
    pairs = {tuple(row[end] for end in ends): f"{row['similarity']:.3f}" for row in first}
    (rows,) = [rows for caption, rows in Page(as_html(run)).tables.items() if caption.startswith("Pairs with")]
    assert 2 <= len(rows) <= 11
    for kind, source, target, similarity, count, shown in rows[1:]:
        (here_, mine), (there, theirs) = (end.split(": ", 1) for end in (source, target))
        assert pairs[here_, there, node[here_, kind, mine], node[there, kind, theirs]] == similarity
        assert int(count) >= len(shown.split(", ")) == 3
        assert set(shown.split(", ")) <= anchors


def test_names_from_the_logs_are_text_and_no_markup(run):
    html = as_html(run)
    assert "b" not in Page(html).elements
    assert "script" not in Page(html).elements
    assert "<b>&'$x_1$" not in html
    assert "books &lt;b&gt;&amp;&#39;$x_1$" in html
    assert "books &lt;b&gt;&amp;'$x_1$</text>" in html  # in a plot


def test_the_page_asks_for_nothing_from_elsewhere(run):
    html = as_html(run)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(#" in html


def test_costs_and_keys_are_the_records(run):
    page = Page(as_html(run))
    costs = page.table("By stage")
    assert list(costs) == ["ingest", "graph", "neighbours", "walk", "align", "train", "blend", "evaluate", "export"]
    assert costs["train"]["resident memory at its largest, MiB"] == f"{run.costs['train'].memory_mib:,}"
    keys = {role: row["key"] for role, row in page.table("A key is").items()}
    assert keys == {role: artifact.key for role, artifact in run.artifacts.items()}


def test_the_settings_shown_are_toml_that_gives_the_same_settings(run):
    def known(value):
        return {key: known(own) for key, own in value.items() if own is not None} if isinstance(value, dict) else value

    config = json.loads(json.dumps(run.config))
    config["logs"] = [known(log) for log in config["logs"]]
    assert tomllib.loads(provenance_section(run).blocks[-1].blocks[0].text) == known(config)


@pytest.mark.parametrize("last", ["rejects", "interactions", "nodes", "graph", "reach", "pairs", "checkpoint-2022"])
def test_a_run_that_ended_early_has_a_report_that_says_so(run, last):
    roles = list(run.artifacts)
    some = {role: run.artifacts[role] for role in roles[: roles.index(last) + 1]}
    html = as_html(RunView(run.name, run.store, run.config, some, {}))
    assert html.count("Not made yet.") == 2 + (last != "checkpoint-2022") + (last in roles[: roles.index("reach")]) + (
        last == "rejects"
    )


def test_runs_of_one_domain_of_sixty_and_of_seventy(store: Store, run: RunView):
    for domains in (1, 60, 70):
        log = random_log(3, {f"d{number}": (8, 8, 30) for number in range(domains)})
        made = build(store, log, every_pair=domains == 1).parents
        html = as_html(RunView("many", store, run.config, made, {}))
        page = Page(html)
        assert len(page.table("Domains")) == domains
        assert ("Overlap of users" in html) == (domains > 1)
        assert ("in the column; the 64 largest domains" in html) == (domains > 64)
        assert len(html) < 1_500_000


def test_the_command_reports_an_unfinished_run_by_its_file(here, capsys):
    rows = "".join(f"u{n % 9},i{n % 5},{'ab'[n % 2]}\n" for n in range(45))
    (here / "log.csv").write_text("user_id,item_id,domain\n" + rows)
    (here / "r.toml").write_text('name = "r"\n[[logs]]\npath = "log.csv"\ncolumns = { domain = "domain" }\n')
    assert edda("report", "r.toml") == 1
    assert "run 'r' has made nothing yet" in capsys.readouterr().err
    edda("ingest", "r.toml", "--no-prefect")
    capsys.readouterr()
    assert edda("report", "r.toml", "--output", "out/r.html") == 0
    assert capsys.readouterr().out == "out/r.html\n"
    assert list(Page((here / "out/r.html").read_text()).table("Domains")) == ["a", "b"]
    assert edda("report", "r.toml", "--output", "out/r.html") == 0, "an earlier report is replaced"
    assert edda("report", "r.toml", "--output", "log.csv") == 1
    assert "log.csv: is there already and is no report" in capsys.readouterr().err
    assert (here / "log.csv").read_text().endswith(rows)


def test_epochs_are_reported_by_whole_numbers():
    svg = line_plot("loss", ("epoch", ""), [Series(([1, 2, 3], [0.7, 0.6, 0.5]), 0)])
    ticks = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert ticks[: ticks.index("epoch")] == ["1", "2", "3"]
