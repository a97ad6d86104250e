"""Other recommenders under EDDA's protocol: same positives, negatives, validation, candidates and checkpoints.

They are learners (`model.learners.base`) whose checkpoints hold each domain's final vectors, so that evaluation and
export need not know them. Matrix factorisation, LightGCN and GRec of each domain alone are settings of EDDA itself
(`train.tables = "intra"`), LightGCN on the union graph is its inter table alone; `flows.config.presets` names them all.
"""

from collections.abc import Callable, Mapping

from model.baselines.ials import Ials
from model.baselines.two_tower import TwoTower
from model.baselines.untrained import Popularity, Walks
from model.learners.base import Learner, Lesson

_BASELINES: Mapping[str, Callable[[Lesson], Learner]] = {
    "popularity": Popularity,
    "walks": Walks,
    "ials": Ials,
    "shared-bottom": TwoTower,
    "mmoe": TwoTower,
    "ple": TwoTower,
    "star": TwoTower,
}


def baseline_of(lesson: Lesson) -> Learner:
    """The baseline that the settings name, before its first epoch.

    Raises:
        KeyError: it is none of these.
    """
    return _BASELINES[lesson.settings.model](lesson)
