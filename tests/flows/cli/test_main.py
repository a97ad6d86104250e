import errno
import json
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from pkgutil import resolve_name

import pyarrow as pa
import pytest
from fake_stages import Stages, edda, here, stages

from data_contracts.contracts import REJECTS
from data_contracts.store.digests import file_digest
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from flows.cli.main import COMMANDS, app, main
from flows.output.console import NOTES

__all__ = ["here", "stages"]


@pytest.fixture(autouse=True)
def _messages_as_by_default():
    """Later tests have no handlers of a command that was called here."""
    yield
    NOTES.handlers = []


def test_a_deleted_artifact_is_named_with_what_makes_it_again(here, stages: Stages, capsys) -> None:
    assert edda("run", "r.toml") == 0
    artifacts = Store(here / "edda-store").recorded(Store(here / "edda-store").run("r"))
    shutil.rmtree(artifacts["metrics"].folder)
    capsys.readouterr()
    assert edda("inspect", "r/metrics") == 1
    remedy = "`edda run` with the run's TOML file makes it again"
    assert capsys.readouterr().err == f"edda: {artifacts['metrics'].folder}: metrics was deleted; {remedy}\n"


def test_a_deleted_current_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert edda("runs") == 1
    assert capsys.readouterr().err == "edda: the current folder was deleted; change to another one\n"


def test_a_run_prints_its_results_on_stdout_and_its_progress_on_stderr(here, stages: Stages, capsys):
    assert edda("run", "r.toml", "--no-prefect") == 0
    out, err = capsys.readouterr()
    assert "books              2  0.750 (0.700–0.800)" in out
    assert "\npairs " in out
    assert "align: making pairs" in err


def test_a_finished_run_says_so_and_shows_its_metrics(here, stages: Stages, capsys):
    edda("run", "r.toml", "--no-prefect")
    capsys.readouterr()
    assert edda("run", "r.toml") == 0
    out, err = capsys.readouterr()
    assert err == "nothing to do, everything is up to date\n"
    assert "0.750" in out


def test_a_stage_that_is_up_to_date_imports_nothing_heavy(here):
    (here / "log.csv").write_text("".join(f"u{n % 9},i{n % 5}\n" for n in range(45)))
    columns = "header = false\ncolumns = { user = 0, item = 1 }"
    (here / "r.toml").write_text(f'name = "r"\n[[logs]]\npath = "log.csv"\ndomain = "books"\n{columns}\n')
    script = """
import sys
from flows.cli.main import COMMANDS, app, main
from flows.output.console import NOTES
try:
    main(["ingest", "r.toml", *sys.argv[1:]])
except SystemExit as ended:
    heavy = {"torch", "numba", "prefect", "dask", "scipy"}
    print(ended.code, sorted({name.split(".")[0] for name in sys.modules} & heavy))
"""
    command = [sys.executable, "-c", script]
    subprocess.run([*command, "--no-prefect"], capture_output=True, check=True)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "nothing to do, everything is up to date\n"
    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_stage_command_makes_what_it_needs(here, stages: Stages, capsys):
    assert edda("graph", "r.toml", "--no-prefect") == 0
    assert set(stages.calls) == {"world", "rejects", "interactions", "nodes", "graph"}


def test_overrides_and_store_are_taken_from_the_command_line(here, stages: Stages):
    assert edda("run", "r.toml", "--no-prefect", "--set", "name=s", "--set", "train.seeds=[1]", "--store", "x y") == 0
    assert (here / "x y/runs/s/checkpoint-1/manifest.json").exists()


def test_a_failure_is_one_message_without_a_traceback_and_exit_1(here, stages: Stages, capsys):
    stages.failures["nodes"] = [ValueError("interactions: no train row; lower split shares")]
    assert edda("run", "r.toml", "--no-prefect") == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == "edda: interactions: no train row; lower split shares"
    assert "Traceback" not in err


def test_a_failure_that_was_not_meant_for_people_names_stage_type_and_how_to_see_more(here, stages: Stages, capsys):
    stages.failures["nodes"] = [IndexError("index out of bounds")]
    assert edda("run", "r.toml", "--no-prefect") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "edda: graph of run 'r' stopped while making nodes: IndexError: index out of bounds (--debug shows where)"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/store/a"),
            "/store/a: No space left on device; free space there, or choose another store with --store",
        ),
        (OSError("9 requested and 5 written"), "9 requested and 5 written (is the disk full?)"),
    ],
)
def test_a_full_disk_names_the_stage_and_how_to_go_on(here, stages: Stages, capsys, error, words):
    stages.failures["nodes"] = [error]
    assert edda("run", "r.toml", "--no-prefect") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"edda: graph of run 'r' stopped while making nodes: {words} — fix the cause and start it again; "
        "what was finished is kept"
    )


def test_debug_shows_the_traceback(here, stages: Stages):
    stages.failures["nodes"] = [ValueError("oops")]
    with pytest.raises(ValueError, match="oops"):
        main(["run", "r.toml", "--no-prefect", "--debug"])


def test_mistakes_in_the_file_exit_1_and_are_all_reported(here, capsys):
    (here / "r.toml").write_text('name = "r"\n[world]\nuser = 1\n[train]\nepochs = 0\n')
    assert edda("run", "r.toml") == 1
    err = capsys.readouterr().err
    assert "world.user is not a known key; did you mean world.users?" in err
    assert "train.epochs is 0, must be ≥ 1" in err


@pytest.mark.parametrize("found", ["1.5", "1.0", "0x10", "ten"])
def test_options_that_count_take_whole_numbers_alone(found, capsys):
    assert edda("inspect", "r", "--head", found) == 2
    assert f"--head: found {found!r}, must be a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["run"], ["run", "a", "b"], ["recommend", "r", "--top", "x"], ["inspect", "r", "--head", "-1"]],
)
def test_wrong_usage_exits_2(arguments, capsys):
    assert edda(*arguments) == 2
    assert capsys.readouterr().out == ""


def test_an_interrupt_exits_130_and_says_how_to_go_on(here, stages: Stages, capsys):
    stages.failures["pairs"] = [KeyboardInterrupt()]
    assert edda("run", "r.toml", "--no-prefect") == 130
    assert "the same command continues from there" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "run", "train", "inspect", "recommend", "compare", "gc"])
def test_help_shows_a_commands_own_examples_and_edda_all(command, capsys):
    assert edda(command, "--help") == 0
    own = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    edda ")]
    assert own
    assert all(line.startswith(f"    edda {command}") for line in own)
    assert edda("--help") == 0
    assert set(own) < set(capsys.readouterr().out.splitlines())


def test_version_is_the_distributions(capsys):
    assert edda("--version") == 0
    assert capsys.readouterr().out.strip() == "0.1.0"


def test_config_prints_a_valid_run(here, capsys, stages: Stages):
    assert edda("config") == 0
    (here / "all.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert edda("ingest", "all.toml", "--no-prefect") == 0


def test_inspect_shows_contract_rows_ranges_and_parents(here, stages: Stages, capsys):
    edda("run", "r.toml", "--no-prefect")
    capsys.readouterr()
    assert edda("inspect", "r/metrics", "--json", "--head", "1") == 0
    found = json.loads(capsys.readouterr().out)
    value = next(column for column in found["columns"] if column["name"] == "value")
    assert (found["contract"], found["rows"], value["minimum"], value["maximum"]) == ("metrics", 4, 0.75, 0.9)
    assert set(found["parents"]) == {"interactions", "nodes", "graph", "neighbours", "checkpoint-2022", "blend-2022"}
    assert all(parent["found"] for parent in found["parents"].values())
    assert (found["violations"], len(found["head"])) == ([], 1)


def test_inspect_shows_the_first_of_many_parts_and_all_settings(here, capsys):
    def write(draft: Draft) -> None:
        draft.write(pa.table({name: [] for name in REJECTS.file_schema.names}, REJECTS.file_schema))
        draft.statistics |= {"domains": {f"d{number:02}": {"rows": number} for number in range(30)}}

    settings = {f"key{number:02}": number for number in range(30)}
    made = Store(here / "edda-store").make(REJECTS, settings, {}, write)
    assert edda("inspect", str(made.path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ("    d19:" in lines, "    d20:" in lines) == (True, False)
    assert "    … 10 more, --json has them" in lines
    assert "  key29: 29" in lines


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("gc",), "must be writable to lock what is in use while garbage is chosen; do it as a user who"),
        (("report", "r"), "must be writable to keep report.html; name another file by --output"),
        (
            ("run", "r.toml", "--no-prefect", "--set", "pairs.k=2"),
            "must be writable to work on run 'r'; choose",
        ),
    ],
)
def test_a_store_that_may_only_be_read_is_reported(here, stages: Stages, capsys, monkeypatch, arguments, remedy):
    edda("run", "r.toml", "--no-prefect")
    capsys.readouterr()
    monkeypatch.setattr("data_contracts.store.files.os.access", lambda *_: False)
    assert edda(*arguments) == 1
    assert f" is read-only, {remedy}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "place", ["r", "r.toml", "edda-store/runs/r", "edda-store/runs/r/nodes", "r/nodes", "nodes/KEY"]
)
def test_inspect_takes_a_runs_name_its_file_or_an_artifacts_folder(here, stages: Stages, capsys, place):
    edda("run", "r.toml", "--no-prefect")
    capsys.readouterr()
    key = (here / "edda-store/runs/r/nodes").resolve().name
    assert edda("inspect", place.replace("KEY", key)) == 0
    assert "nodes (contract version 1): Every user and item of a domain" in capsys.readouterr().out


@pytest.mark.parametrize("place", [[], ["edda-store"], ["--store", "edda-store"]])
def test_inspect_of_a_store_lists_its_runs(here, stages: Stages, capsys, place):
    edda("run", "r.toml", "--no-prefect")
    (here / "s.toml").write_text('name = "s"\n[world]\n[evaluate]\ncandidates = 7\n')
    edda("ingest", "s.toml", "--no-prefect")
    capsys.readouterr()
    assert edda("inspect", *place, "--json") == 0
    finished, started = json.loads(capsys.readouterr().out)["runs"]
    assert (finished["name"], finished["interactions"], finished["unfinished"]) == ("r", 2, None)
    assert (started["name"], started["auc"]) == ("s", None)
    assert edda("inspect", *place) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["run", "made"]


def test_inspect_of_a_store_without_runs_says_so(here, capsys):
    assert edda("inspect", "--store", "elsewhere") == 0
    assert capsys.readouterr().out == "Runs in elsewhere: none\n"


def test_inspect_finds_damage_and_exits_1(here, stages: Stages, capsys):
    edda("run", "r.toml", "--no-prefect")
    path = next((here / "edda-store/interactions").glob("*/domain=books/*.parquet"))
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    assert edda("inspect", "r/interactions") == 1
    assert "VIOLATION: interactions/domain=books/part-00000.parquet: sha256" in capsys.readouterr().out


def test_inspect_of_nothing_names_what_there_is(here, stages: Stages, capsys):
    edda("ingest", "r.toml", "--no-prefect")
    assert edda("inspect", "nope") == 1
    assert "run 'nope' is not in" in (err := capsys.readouterr().err)
    assert err.endswith("runs there: r\n")
    assert edda("inspect", "r/pairs") == 1
    assert "run 'r' has no artifact 'pairs', must be one of " in capsys.readouterr().err


@pytest.mark.parametrize("command", [["run", "r.toml"], ["compare", "r.toml", "--baselines"]])
def test_a_log_is_read_once_for_its_digest_however_many_runs_read_it(
    here, stages: Stages, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    (here / "log.csv").write_text("user_id,item_id\nu,i\n")
    (here / "r.toml").write_text('name = "r"\n[[logs]]\npath = "log.csv"\ndomain = "books"\n')
    read: list[Path] = []
    monkeypatch.setattr("data_contracts.store.digests.file_digest", lambda path: read.append(path) or file_digest(path))
    assert edda(*command, "--no-prefect") == 0
    assert [path for path in read if path.suffix == ".csv"] == [here / "log.csv"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_command_says_of_itself(name):
    function, summary = COMMANDS[name]
    command = resolve_name(function)
    assert summary == (command.help if name == "datasets" else " ".join(command.__doc__.split("\n\n")[0].split()))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 74.5 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80000000000 bytes"),
        pa.ArrowMemoryError("malloc of size 80000000000 failed"),
    ],
)
def test_too_little_memory_is_said_with_stage_size_and_remedy(here, stages: Stages, capsys, error):
    stages.failures["nodes"] = [error]
    assert edda("run", "r.toml", "--no-prefect") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"edda: graph of run 'r' stopped while making nodes: not enough memory: {error}; ")
    assert re.search(r"; [0-9,]+ MiB are free now, the process had [0-9,]+ at most; lower compute.memory_mib", line)


def test_errors_of_the_operating_system_have_no_number(here, capsys):
    (here / "r.toml").unlink()
    (here / "r.toml").mkdir()
    assert edda("run", "r.toml") == 1
    assert capsys.readouterr().err == "edda: r.toml: is a folder, must be a TOML file\n"


def test_edda_help_shows_what_a_commands_option_shows(capsys) -> None:
    assert edda("run", "--help") == 0
    of_option = capsys.readouterr().out
    assert edda("help", "run") == 0
    assert capsys.readouterr().out == of_option
    assert edda("help") == 0
    assert capsys.readouterr().out.startswith("Usage: edda COMMAND")
    assert edda("help", "rnu") == 1
    assert capsys.readouterr().err == "edda: edda help rnu: there is no such command; did you mean run?\n"


TYPES = re.compile(r"\b(STR|INT|FLOAT|PATH|BOOL|LIST\[.*)\b")


@pytest.mark.parametrize("command", [*(name for name in COMMANDS if name != "datasets"), "datasets verify"])
def test_help_names_what_an_option_takes_and_no_type_of_python(command: str, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    assert edda("help", *command.split()) == 0
    shown = capsys.readouterr().out
    assert [
        line for line in shown.splitlines() if TYPES.search(line) or "[default: False]" in line or "()]" in line
    ] == []


def test_help_says_who_a_recommendation_is_for_before_the_options_of_messages(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    assert edda("recommend", "--help") == 0
    lines = [line.strip("│╭─╮ ") for line in capsys.readouterr().out.splitlines()]
    titles = [line for line in lines if line in ("Arguments", "Parameters", "For whom", "Messages")]
    assert titles == ["Arguments", "Parameters", "For whom", "Messages"]
    assert any(line.startswith("--user USER       A user's id as in the logs") for line in lines)


def test_quiet_prints_the_result_and_no_message(here, stages: Stages, capsys) -> None:
    assert edda("graph", "r.toml", "-q") == 0
    out, err = capsys.readouterr()
    assert "Artifacts in" in out
    assert err == ""
    assert edda("graph", "r.toml", "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert edda("graph", "none.toml", "-q") == 1
    assert capsys.readouterr().err == "edda: none.toml: no such file\n"


def test_verbose_names_keys_and_who_says_so(here, stages: Stages, capsys) -> None:
    assert edda("graph", "r.toml", "-v") == 0
    err = capsys.readouterr().err
    key = Store("edda-store").run("r").artifacts["nodes"][1]
    assert re.search(rf"\d flows.runner.execute: nodes: key {key}, from {{'interactions': '", err)
    assert re.search(r"flows.runner.execute: graph: [\d.]+ s, at most [\d,]+ MiB\n", err)


def test_messages_and_errors_can_be_json(here, stages: Stages, capsys) -> None:
    assert edda("graph", "r.toml", "--log-json") == 0
    assert edda("graph", "none.toml", "--log-json") == 1
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(list(record) == ["time", "level", "logger", "message"] for record in records)
    (making,) = [record for record in records if record["message"] == "graph: making nodes"]
    assert (making["level"], making["logger"]) == ("info", "flows.runner.execute")
    assert datetime.fromisoformat(making["time"]).utcoffset() == timedelta(0)
    assert records[-1].items() >= {"level": "error", "message": "edda: none.toml: no such file"}.items()


def test_every_shell_completes_commands_and_options() -> None:
    for shell in ("bash", "zsh", "fish"):
        script = app.generate_completion(prog_name="edda", shell=shell)
        assert all(word in script for word in ("scoreboard", "dry-run", "log-json", "no-prefect"))
