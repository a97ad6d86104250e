"""Updates by the command line: what was trained on before is no test row, or the log says so."""

import pytest
from fake_stages import edda

from data_contracts.open_store import open_store

RUN = """
name = "r"
update = true
[[logs]]
path = "day*.csv"
domain = "a"
columns = { timestamp = "time" }
[ingest]
cold = "keep"
protocol = "PROTOCOL"
[ingest.split]
method = "leave-last-out"
[train]
epochs = 1
[compute]
threads = 1
"""


@pytest.mark.parametrize(("protocol", "seen"), [("clean", 0), ("released", 4)])
def test_users_with_two_rows_who_get_a_third(tmp_path, monkeypatch, capsys, protocol, seen):
    """Six users with two rows, of whom four get a third: only the released protocol holds out the second one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text(RUN.replace("PROTOCOL", protocol))
    (tmp_path / "day1.csv").write_text(
        "user_id,item_id,time\n" + "".join(f"u{user},i{(user + n) % 4},{n}\n" for user in range(6) for n in (1, 2))
    )
    assert edda("run", "r.toml") == 0
    (tmp_path / "day2.csv").write_text("user_id,item_id,time\n" + "".join(f"u{user},new,3\n" for user in range(4)))
    capsys.readouterr()
    assert edda("run", "r.toml") == 0
    log = " ".join(capsys.readouterr().err.split())
    warning = (
        "4 held-out rows were trained on before: their scores flatter; ingest.protocol = 'clean' keeps such rows in "
        "training (run once with update = false to change it)"
    )
    assert (warning in log) == bool(seen)
    store = open_store("edda-store")
    artifacts = store.recorded(store.run("r"))
    rows = artifacts["interactions"].read(["split"])["split"].to_pylist()
    assert [rows.count(split) for split in ("train", "valid", "test")] == [12 - seen, seen, 4]
    assert artifacts["checkpoint-2022"].statistics["warm_start"]["held_out_rows_seen"] == seen
