"""Which settings of training enter a checkpoint's key, and which exclude each other."""

import pytest
from pydantic import ValidationError

from data_contracts.settings.train import TrainSettings


@pytest.mark.parametrize(("setting", "value"), [("pair_edges", 0.5), ("alignment_loss", "contrast")])
def test_uses_of_pairs_enter_the_key_only_where_they_are_on(setting: str, value: object) -> None:
    assert setting not in TrainSettings(alignment=0.3).keyed()
    assert TrainSettings(**{setting: value}).keyed() == {**TrainSettings().keyed(), setting: value}


def test_pairs_are_read_where_they_are_aligned_or_joined() -> None:
    assert not TrainSettings().reads_pairs
    assert not TrainSettings(alignment=0.3, tables="inter").reads_pairs
    assert not TrainSettings(pair_edges=0.5, model="ials").reads_pairs
    assert TrainSettings(alignment=0.3).reads_pairs
    assert TrainSettings(pair_edges=0.5, tables="inter").reads_pairs


@pytest.mark.parametrize("others", [{"inter_graph": "by-domain"}, {"tables": "intra"}])
def test_edges_of_pairs_need_the_union_graph(others: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="pair_edges needs the union graph of an inter table"):
        TrainSettings(pair_edges=0.5, **others)


def test_the_residual_enters_the_key_of_grec_alone():
    assert TrainSettings(residual=0.5).keyed() != TrainSettings().keyed()
    for backbone in ("mf", "lightgcn", "jgcf"):
        assert TrainSettings(residual=0.5, backbone=backbone).keyed() == TrainSettings(backbone=backbone).keyed()
