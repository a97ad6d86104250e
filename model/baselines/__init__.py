"""Other recommenders under EDDA's protocol: same positives, negatives, validation, candidates and checkpoints.

They are learners (`model.learners.base`) whose checkpoints hold each domain's final vectors, so evaluation and export
need not know the model. Matrix factorisation, LightGCN and GRec of each domain alone are settings of EDDA itself
(`train.tables = "intra"`), LightGCN on the union graph is its inter table alone; `flows.config.presets` names them all.
"""

from collections.abc import Callable, Mapping

from model.baselines.ials import Ials
from model.baselines.two_tower import TwoTower
from model.baselines.untrained import Popularity, Walks
from model.learners.base import Learner, TrainingData

_BASELINES: Mapping[str, Callable[[TrainingData], Learner]] = {
    "popularity": Popularity,
    "walks": Walks,
    "ials": Ials,
    "shared-bottom": TwoTower,
    "mmoe": TwoTower,
    "ple": TwoTower,
    "star": TwoTower,
}


def build_baseline(data: TrainingData) -> Learner:
    """The baseline of the settings, before its first epoch.

    Raises:
        KeyError: the settings name no baseline.
    """
    return _BASELINES[data.settings.model](data)
