"""Adapters on files made by hand, in the formats that were published."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_stages import edda

from data_contracts.store.store import Store
from pipeline.logs.discovery import LogError
from pipeline.published.convert import convert

RUNS = Path(__file__).parents[3] / "flows/runs"


def rows(folder: Path, name: str = "logs") -> list[tuple]:
    return [tuple(row.values()) for row in pq.read_table(folder / f"converted/{name}.parquet").to_pylist()]


def features(*found: tuple[str, str]) -> str:
    return "\x01".join(f"{field}\x02{id_}\x03{value}" for field, id_, value in ((*f, "1.0") for f in found))


def ali_ccp(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, user in (("train", "u1"), ("test", "u2")):
        common = features(("121", "profile"), ("101", user), ("109_14", "x"))
        (folder / f"common_features_{split}.csv").write_text(
            f"s1,3,{common}\ns2,1,{features(('1010', 'no'))}\nhalf,1\n"
        )
    shown = features(("1205", "no"), ("205", "i1"), ("2050", "no"), ("301", "scene1"))
    lines = [
        f"1,1,0,s1,3,{shown}",
        f"2,0,0,s1,3,{shown}",
        f"3,1,1,s1,3,{features(('301', 'scene2'), ('205', 'i2'))}",
        f"4,1,0,s9,3,{shown}",
        f"5,1,0,s1,1,{features(('205', 'i1'))}",
        f"6,yes,0,s1,3,{shown}",
        "7,1,0",
    ]
    (folder / "sample_skeleton_train.csv").write_text("\n".join(lines) + "\n")
    (folder / "sample_skeleton_test.csv").write_text(lines[0] + "\n")


def test_ali_ccp_clicks_take_their_user_from_the_common_features_of_their_split(tmp_path):
    ali_ccp(tmp_path / "a")
    made = convert("ali-ccp", tmp_path / "a")
    assert rows(tmp_path / "a") == [("u1", "i1", "scene1"), ("u1", "i2", "scene2"), ("u2", "i1", "scene1")]
    assert made.rejects == {"arity": 3, "missing": 3, "number": 1, "unknown": 1}


def test_rejected_lines_keep_file_line_reason_and_text(tmp_path):
    ali_ccp(tmp_path / "a")
    convert("ali-ccp", tmp_path / "a")
    of_file = [row for row in rows(tmp_path / "a", "rejects") if row[0] == "sample_skeleton_train.csv"]
    assert of_file == [
        ("sample_skeleton_train.csv", 4, "unknown", "s9"),
        ("sample_skeleton_train.csv", 5, "missing", features(("205", "i1"))),
        ("sample_skeleton_train.csv", 6, "number", "yes"),
        ("sample_skeleton_train.csv", 7, "arity", "7,1,0"),
    ]


def test_the_result_does_not_depend_on_the_block_size(tmp_path, monkeypatch):
    for name, size in (("a", 1 << 20), ("b", 64)):
        ali_ccp(tmp_path / name)
        monkeypatch.setattr("pipeline.published.blocks._BLOCK_BYTES", size)
        convert("ali-ccp", tmp_path / name)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert rows(tmp_path / "a", "rejects") == rows(tmp_path / "b", "rejects")


def test_what_was_converted_is_kept_and_a_failure_leaves_nothing(tmp_path):
    ali_ccp(tmp_path / "a")
    (tmp_path / "a/sample_skeleton_test.csv").rename(tmp_path / "kept.csv")
    with pytest.raises(FileNotFoundError, match=r"sample_skeleton_test.csv"):
        convert("ali-ccp", tmp_path / "a")
    assert not (tmp_path / "a/converted").exists()
    (tmp_path / "kept.csv").rename(tmp_path / "a/sample_skeleton_test.csv")
    first = convert("ali-ccp", tmp_path / "a")
    (tmp_path / "a/sample_skeleton_test.csv").unlink()
    assert convert("ali-ccp", tmp_path / "a") == first


def taobao_ad(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "ad_feature.csv").write_text(
        "adgroup_id,cate_id,campaign_id,customer,brand,price\n1,60,9,9,NULL,170.0\n2,70,9,9,87331,199.0\n"
    )
    (folder / "raw_sample.csv").write_text(
        "user,time_stamp,adgroup_id,pid,nonclk,clk\n"
        "u1,1494137644,1,430548_1007,0,1\n"
        "u2,1494137645,1,430548_1007,1,0\n"
        "u2,1494137646,2,430539_1007,0,1\n"
        "u3,1494137647,9,430539_1007,0,1\n"
        ",1494137648,1,430539_1007,0,1\n"
        "u4,1494137649,1,430539_1007,0\n"
    )


def test_taobao_clicks_have_position_and_category(tmp_path):
    taobao_ad(tmp_path / "t")
    convert("taobao-ad", tmp_path / "t")
    assert rows(tmp_path / "t") == [
        ("u1", "1", "430548_1007", "60", "1494137644"),
        ("u2", "2", "430539_1007", "70", "1494137646"),
    ]
    assert [row[1:] for row in rows(tmp_path / "t", "rejects")] == [
        (5, "unknown", "9"), (6, "missing", "\t1"), (7, "arity", "u4,1494137649,1,430539_1007,0"),
    ]  # fmt: skip


def test_small_taobao_categories_are_other(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.published.taobao_ad._CATEGORIES", 1)
    taobao_ad(tmp_path / "t")
    convert("taobao-ad", tmp_path / "t")
    assert [row[3] for row in rows(tmp_path / "t")] == ["60", "other"]


RATINGS = {"ml-100k": "u.data", "ml-1m": "ratings.dat", "ml-32m": "ratings.csv"}


def movielens(folder: Path, name: str) -> None:
    """Film 1 is a comedy for children, film 2 a drama in another alphabet than ASCII."""
    folder.mkdir(parents=True)
    if name == "ml-100k":
        (folder / "u.genre").write_text("unknown|0\nChildren's|1\nComedy|2\nDrama|3\n\n")
        lines = ["1|Toy Story (1995)|01-Jan-1995||http://x|0|1|1|0", "2|Misérables, Les (1995)|||http://x|0|0|0|1"]
        (folder / "u.item").write_bytes("".join(f"{line}\n" for line in lines).encode("latin-1"))
        (folder / "u.data").write_text("196\t1\t4\t881250949\n196\t2\t3\t881250950\n7\t9\t5\t881250951\n")
    elif name == "ml-1m":
        lines = ["1::Toy Story (1995)::Children's|Comedy", "2::Misérables, Les (1995)::Drama", "3::no genres"]
        (folder / "movies.dat").write_bytes("".join(f"{line}\n" for line in lines).encode("latin-1"))
        (folder / "ratings.dat").write_text("196::1::4::881250949\n196::2::3::881250950\n7::9::5::881250951\n")
    else:
        lines = ["movieId,title,genres", "1,Toy Story (1995),Children's|Comedy", '2,"Misérables, Les (1995)",Drama']
        (folder / "movies.csv").write_text("".join(f"{line}\n" for line in lines))
        rated = ["userId,movieId,rating,timestamp", "196,1,4,881250949", "196,2,3,881250950", "7,9,5,881250951"]
        (folder / "ratings.csv").write_text("".join(f"{line}\n" for line in rated))


@pytest.mark.parametrize("name", list(RATINGS))
def test_movielens_ratings_stand_in_each_genre_of_their_film(tmp_path, name):
    movielens(tmp_path / name, name)
    convert(name, tmp_path / name)
    assert rows(tmp_path / name) == [
        ("Children's", "196", "1", "4", "881250949"),
        ("Comedy", "196", "1", "4", "881250949"),
        ("Drama", "196", "2", "3", "881250950"),
    ]
    found = [row[0::2][:2] for row in rows(tmp_path / name, "rejects")]
    of_films = [("movies.dat", "arity")] if name == "ml-1m" else []
    assert found == [*of_films, (RATINGS[name], "unknown")]


def test_an_empty_file_is_refused(tmp_path):
    movielens(tmp_path / "m", "ml-1m")
    (tmp_path / "m/ratings.dat").write_text("")
    with pytest.raises(LogError, match="the file that should become the log is empty"):
        convert("ml-1m", tmp_path / "m")


def amazon_reviews(folder: Path) -> None:
    folder.mkdir(parents=True)
    for category, users in (("Luxury_Beauty", "AB"), ("Prime_Pantry", "BC")):
        reviews = (
            {"overall": 5.0, "verified": True, "vote": "3", "reviewTime": "06 3, 2010", "reviewerID": user,
             "asin": f"B0000{category[0]}{item}", "style": {"Size:": " 1"}, "reviewText": "Good, \"really\"",
             "summary": "s", "unixReviewTime": 1275523200 + item}
            for user in users for item in range(10)
        )  # fmt: skip
        with gzip.open(folder / f"{category}_5.json.gz", "wt") as stream:
            stream.writelines(f"{json.dumps(review)}\n" for review in reviews)


@pytest.mark.parametrize(
    ("name", "folder", "make", "domains"),
    [
        ("ali-ccp", "ali-ccp", ali_ccp, {"scene1": 2, "scene2": 1}),
        ("taobao-ad", "taobao-ad", taobao_ad, {"430539_1007": 1, "430548_1007": 1}),
        ("ml-1m", "movielens/ml-1m", lambda folder: movielens(folder, "ml-1m"), {"Children's": 1, "Comedy": 1}),
        ("amazon-reviews", "amazon-reviews", amazon_reviews, {"Luxury_Beauty": 20, "Prime_Pantry": 20}),
    ],
)
def test_the_ready_run_reads_what_there_is(tmp_path, monkeypatch, capsys, name, folder, make, domains):
    monkeypatch.setenv("EDDA_DATA", str(tmp_path))
    make(tmp_path / folder)
    if name != "amazon-reviews":
        assert edda("datasets", "convert", name) == 0
        assert "converted/logs.parquet; rejected lines (rejects.parquet): " in capsys.readouterr().out
    store, whole = (
        str(tmp_path / "store"),
        [f"--set=ingest.{key}=0" for key in ("split.test_share", "split.valid_share", "kept_share_at_least")],
    )
    assert edda("ingest", str(RUNS / f"{name}.toml"), "--no-prefect", "--store", store, *whole) == 0
    found = Store(tmp_path / "store").recorded(Store(tmp_path / "store").run(name))["interactions"]
    assert {entry["domain"]: found.read(**entry).num_rows for entry in found.partitions()} == domains


def test_what_needs_no_conversion_says_so(capsys):
    assert edda("datasets", "convert", "amazon") == 1
    assert "amazon needs no conversion: edda run " in capsys.readouterr().err
