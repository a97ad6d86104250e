"""The table of stages, and everything that must agree with it."""

import inspect
from pathlib import Path
from pkgutil import resolve_name

import pyarrow as pa
import pytest
import yaml
from fake_stages import Stages, load_run_config, stages

from data_contracts.contracts import CONTRACTS, METRICS
from data_contracts.roles import Role
from data_contracts.schema import Column, Contract
from data_contracts.settings.machine import ComputeSettings
from flows.cli.main import COMMANDS
from flows.runner.execute import run_stages
from flows.runner.stage_names import STAGE_HELP
from flows.runner.stages import STAGE_NAMES, STAGES, WORLD_STAGE, Product, Stage

__all__ = ["stages"]

DEPLOYMENTS = yaml.safe_load((Path(__file__).parents[3] / "prefect.yaml").read_text())["deployments"]
PRODUCTS = [product for stage in (WORLD_STAGE, *STAGES) for product in stage.products]


def test_every_stage_has_a_deployment_and_a_command() -> None:
    assert [deployment["name"] for deployment in DEPLOYMENTS] == ["full", *STAGE_NAMES]
    for deployment in DEPLOYMENTS:
        assert deployment["parameters"]["stage"] == deployment["name"]
        assert deployment["work_pool"]["name"] == ("edda-train" if deployment["name"] == "train" else "edda-process")
        path, _, flow = deployment["entrypoint"].partition(":")
        assert (Path(__file__).parents[3] / path).exists()
        assert flow == "edda"
    assert list(STAGE_NAMES) == [name for name in COMMANDS if name in STAGE_NAMES] == list(STAGE_HELP)


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.contract.name)
def test_every_stage_function_has_the_same_signature(product: Product) -> None:
    parameters = list(inspect.signature(resolve_name(product.function)).parameters.values())
    names = [parameter.name for parameter in parameters if parameter.kind != inspect.Parameter.KEYWORD_ONLY]
    parents = "logs" if product.reads_logs else "parents"
    previous = ["previous"] if product.previous else []
    assert names == ["store", "settings", parents, "compute", "progress", *previous]


@pytest.mark.parametrize(
    "role", [Role(METRICS), Role(METRICS, 7), Role(METRICS).previous, Role(METRICS, 2022).previous], ids=str
)
def test_a_role_is_what_its_text_says(role: Role) -> None:
    assert Role.parse(str(role)) == role


@pytest.mark.parametrize("text", ["metrics-1-2", "metrics-x", "metrics-before-1"])
def test_a_text_that_is_no_role_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a contract's name, a seed|invalid literal"):
        Role.parse(text)


def test_a_stage_is_added_by_a_contract_a_function_and_a_row(
    tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CONTRIBUTING.md describes it."""
    contract = Contract(
        "longest", 1, "The longest user id.", (Column("id", pa.string(), "a user's id"),), ("id",), ("id",)
    )
    row = Stage(
        "longest",
        "Find the longest user id.",
        (Product(contract, "pipeline.longest:find_longest", lambda *_: ComputeSettings(), lambda *_: [Role(METRICS)]),),
    )
    monkeypatch.setitem(CONTRACTS, "longest", contract)
    monkeypatch.setattr("flows.runner.plan.STAGES", (*STAGES, row))
    monkeypatch.setattr("flows.runner.execute.STAGE_NAMES", (*STAGE_NAMES, "longest"))
    functions = dict(stages.functions)
    functions["pipeline.longest:find_longest"] = lambda store, settings, parents, _compute, _progress: store.make(
        contract, settings.keyed(), parents, lambda draft: draft.write(pa.table({"id": ["u"]}))
    )
    monkeypatch.setattr("flows.runner.execute.resolve_name", functions.__getitem__)
    assert run_stages(load_run_config(tmp_path)).made[-1] == "longest"
    assert run_stages(load_run_config(tmp_path), "longest").made == []
