"""Runs with next to no data: every command works, and says what is missing."""

import shlex

import pytest
from fake_stages import edda

from data_contracts.open_store import open_store
from flows.output.plots import bars

RUN = 'name = "r"\n[[logs]]\npath = "log.csv"\ndomain = "a"\n[train]\nepochs = 1\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text(RUN)
    return tmp_path


def test_a_single_interaction_makes_a_run_without_metrics_and_recommendations(here, capsys):
    (here / "log.csv").write_text("user_id,item_id\nu,i\n")
    assert edda("run", "r.toml", "--no-prefect") == 0
    assert "No test row is left, so nothing was measured; see ingest.split and the rejects." in capsys.readouterr().out
    assert "No test row is left" in (here / "edda-store/runs/r/report.html").read_text()
    assert edda("compare", "r") == 0
    assert capsys.readouterr().out.startswith("Training, mean over seeds")
    assert edda("recommend", "r", "--domain", "a", "--user", "u") == 0
    assert capsys.readouterr() == ("", "domain 'a' has no other item to recommend\n")


@pytest.mark.parametrize("store", ["file", "file/store"])
def test_a_store_that_is_a_file_is_an_error(here, capsys, store):
    (here / "file").touch()
    assert edda("ingest", "r.toml", "--no-prefect", "--store", store) == 1
    assert capsys.readouterr().err == f"edda: store {here / store}: {here / 'file'} is a file, must be a folder\n"
    assert open_store(here / "folder/that/is/not/there").run_names() == []


@pytest.mark.parametrize("target", ["nowhere", "link"])
def test_a_store_that_is_a_link_to_nothing_or_a_device_is_an_error(here, target):
    (here / "link").symlink_to(target)
    with pytest.raises(NotADirectoryError, match="link is a link that leads nowhere, must lead to a folder"):
        open_store(here / "link" / "store")
    with pytest.raises(NotADirectoryError, match="store /dev/null: /dev/null is a device or a pipe, must be a folder"):
        open_store("/dev/null")


def test_a_domain_without_a_test_row_is_in_the_table_of_metrics(here, capsys):
    """b has three items of one user each, which are cold where they are held out."""
    rows = [f"u{n % 4},i{(n * n + n) % 5},a,{n}" for n in range(40)] + [f"u1,j{n},b,{n}" for n in range(3)]
    (here / "log.csv").write_text("\n".join(["user_id,item_id,domain,time", *rows]))
    (here / "r.toml").write_text(
        'name = "r"\n[[logs]]\npath = "log.csv"\ncolumns = { domain = "domain", timestamp = "time" }\n'
        '[ingest.split]\nmethod = "leave-last-out"\n[train]\nepochs = 1\n'
    )
    assert edda("evaluate", "r.toml", "--no-prefect") == 0
    table = capsys.readouterr().out.partition("Test metrics by domain")[2].splitlines()
    assert [line.split()[0] for line in table[2:5]] == ["a", "b", "macro"]
    assert set(table[3].split()[2:]) == {"–"}


def test_plots_have_names_in_any_script():
    assert "日本" in bars("rows", "rows", {"日本": 1.0})


def test_a_log_of_which_nothing_is_left_names_the_reasons(here, capsys):
    (here / "log.csv").write_text("user_id,item_id,rating\n,i,5\nu,,5\nu,i,1\n")
    (here / "r.toml").write_text(
        RUN.replace('domain = "a"', 'domain = "a"\nrating_at_least = 4\ncolumns = { rating = "rating" }')
        + "[ingest]\nrejected_share_at_most = 1.0\nkept_share_at_least = 0.0\n"
    )
    assert edda("train", "r.toml", "--no-prefect") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "edda: there is no domain: no raw row of 3 became an interaction (missing 2, rating 1); "
        "`edda inspect RUN/rejects` shows them; fix the logs, or what their source and [ingest] say of them"
    )


def test_folders_and_links_may_have_the_characters_of_patterns_in_their_names(here, monkeypatch, capsys):
    """The run's folder, the store, the log, and a link that its path goes through."""
    folder = here / "what? [x]*"
    (folder / "elsewhere").mkdir(parents=True)
    (folder / "lo*gs").symlink_to(folder / "elsewhere")
    (folder / "elsewhere/a?.csv").write_text("user_id,item_id\n" + "".join(f"u{n % 5},i{n % 3}\n" for n in range(30)))
    (folder / "elsewhere/ab.csv").write_text("of,another\nlog,it\n")
    monkeypatch.chdir(folder)
    (folder / "r.toml").write_text(RUN.replace('"log.csv"', '"lo*gs/a[?].csv"'))
    assert edda("ingest", "r.toml", "--store", "st*r?e [1]") == 0
    assert edda("inspect", "r", "--store", "st*r?e [1]", "--sql", "select sum(count) as n from interactions") == 0
    assert capsys.readouterr().out.split()[-1] == "30"


def test_a_run_ends_with_a_command_that_recommends(here, capsys):
    """Ids may look like options or have what a shell reads; a second run, which makes nothing, does not read them."""
    rows = [(user, f"i{n}") for user in ("-x $(y)", "b c") for n in range(4)]
    (here / "log.csv").write_text("user_id,item_id\n" + "".join(f"{user},{item}\n" for user, item in rows))
    assert edda("run", "r.toml", "--store", "other store") == 0
    *_, report, last = capsys.readouterr().out.splitlines()
    assert report.startswith("Report: ")
    assert last.startswith("Try: edda recommend r --domain=a '--user=")
    assert edda(*shlex.split(last)[2:]) == 0
    assert capsys.readouterr().out.startswith("1\ti")
    assert edda("run", "r.toml", "--store", "other store") == 0
    assert "Try: " not in capsys.readouterr().out
