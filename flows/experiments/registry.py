"""The experiments by name: the question, the cases that answer it, and what is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_contracts.statistics import ExperimentStatistics
from flows.compare.experiments import MEMORY, NDCG, SECONDS
from flows.experiments import data_cases, model_cases, twin_cases
from flows.experiments.cases import OFF, CaseMaker
from flows.experiments.measures import CHANCE, CONFLICT, FOUND, NORM, group_ndcg


@dataclass(frozen=True)
class Experiment:
    """A question that runs answer.

    Attributes:
        question: in one sentence.
        cases: makes them.
        compared: factors whose levels are compared, each with its level of reference; of several the first is drawn.
        along: the factor that plots have as x.
        measures: that effects are computed of.
        by_domain: measures that are shown domain by domain.
        predictor: a measure of the reference that may predict the effects on the first, over domains; empty for none.
    """

    question: str
    cases: CaseMaker
    compared: Sequence[tuple[str, str]]
    along: str
    measures: Sequence[str] = (NDCG,)
    by_domain: Sequence[str] = (NDCG,)
    predictor: str = ""

    @property
    def design(self) -> ExperimentStatistics:
        """What is kept with the results."""
        design: ExperimentStatistics = {
            "question": self.question,
            "compared": list(self.compared),
            "along": self.along,
            "measures": list(self.measures),
            "by_domain": list(self.by_domain),
        }
        return {**design, "predictor": self.predictor} if self.predictor else design


EXPERIMENTS: Mapping[str, Experiment] = {
    "gradient-conflict": Experiment(
        "Do domains pull a shared table apart, do tables of their own end that, and does it predict lost accuracy?",
        model_cases.gradient_conflict,
        (("tables", "inter"),),
        "tables",
        (NDCG, CONFLICT, CHANCE, NORM),
        (NDCG, CONFLICT),
        CONFLICT,
    ),
    "overlap": Experiment(
        "How much must domains share for alignment to pay?",
        data_cases.overlap,
        (("alignment", OFF),),
        "shared",
    ),
    "oracle-twins": Experiment(
        "People with two names: what would it be worth to know them, and which use of aligned pairs comes near?",
        twin_cases.oracle_twins,
        (("users", twin_cases.APART),),
        "users",
        (group_ndcg(twin_cases.TWINS), group_ndcg(twin_cases.ONE_DOMAIN), NDCG, FOUND),
        (),
    ),
    "depth-or-alignment": Experiment(
        "Reach follows the edges that layers read: do aligned pairs add anything that depth does not?",
        model_cases.depth_or_alignment,
        (("alignment", OFF),),
        "layers",
    ),
    "domain-count": Experiment(
        "What does each further domain bring to those that are there, and what does it cost?",
        data_cases.domain_count,
        (("domains", "1 domain"),),
        "domains",
        (group_ndcg(data_cases.FIRST), SECONDS, MEMORY),
    ),
    "building-blocks": Experiment(
        "Do disentangled tables and alignment pay under every building block?",
        model_cases.building_blocks,
        (("alignment", OFF), ("tables", "inter"), ("alignment", model_cases.SHUFFLED)),
        "block",
    ),
    "small-domains": Experiment(
        "Do small domains gain more because they are small?",
        data_cases.small_domains,
        (("training", data_cases.ALONE),),
        "users",
        (group_ndcg(data_cases.SHRUNK),),
        (),
    ),
    "walk-quality": Experiment(
        "How many walks do good pairs need, and does accuracy follow the quality of pairs?",
        model_cases.walk_quality,
        (("walks", model_cases.EXACT),),
        "walks",
        (FOUND, NDCG),
        (),
    ),
}
