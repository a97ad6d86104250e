import math

import numpy as np
import pytest
import torch
from oracle_model import assert_gradients_are_close, final_vectors
from tiny_world import Tiny

from data_contracts.settings.train import TrainSettings
from model.data.batches import Batch, Batching, build_batches, build_positives
from model.data.dataset import MultiDomainData, load_dataset, load_interactions
from model.edda.final_vectors import build_graphs
from model.edda.final_vectors import final_vectors as pruned_vectors
from model.edda.model import Edda, RankingStep, TableShapes
from model.edda.objectives import BPR, CosineSoftmax, SquaredError, build_objective, normalised
from model.edda.propagation import Dropout, build_backbone, sample_subgraph
from model.sparse.group_scores import GroupPattern, group_pattern
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))
PENALTIES = (0.01, 0.07)
CASES = [("grec", 2, "both"), ("lightgcn", 3, "inter"), ("grec", 1, "intra"), ("mf", 0, "both")]


def hand_pattern(known: list[list[bool]]) -> GroupPattern:
    """Row 0: user 0, positive 2, negative 3; row 1: user 1, positive 3, negative 4."""
    return group_pattern(np.array([[0, 1], [2, 3], [3, 4]], np.int32), 5, np.array([0, 1]), np.array(known))


# cosines: user 0 with items 2, 3, 4: 1, 0, 0.6; user 1: 0, 1, 0.8
HAND = torch.tensor([[2.0, 0.0], [0.0, 3.0], [5.0, 0.0], [0.0, 0.5], [3.0, 4.0]])
LOSSES = [
    math.log(math.exp(1 / 0.5) + math.exp(0.0) + math.exp(0.6 / 0.5)) - 1 / 0.5,
    math.log(math.exp(1 / 0.5) + math.exp(1 / 0.5) + math.exp(0.8 / 0.5)) - 1 / 0.5,
]


def loss_of(pattern: GroupPattern, vectors: torch.Tensor, thresholds: torch.Tensor | None = None) -> torch.Tensor:
    objective = CosineSoftmax(0.5, 0.25)
    return objective.loss(pattern, objective.sums(pattern, vectors, MULTIPLY), thresholds)


def test_softmax_is_the_mean_cross_entropy_of_positives_among_their_groups_negatives() -> None:
    assert loss_of(hand_pattern([[False] * 2] * 2), HAND).item() == pytest.approx(sum(LOSSES) / 2)


def test_negatives_that_the_user_has_do_not_count() -> None:
    second = math.log(math.exp(1 / 0.5) + math.exp(0.8 / 0.5)) - 1 / 0.5
    found = loss_of(hand_pattern([[False, False], [True, False]]), HAND)
    assert found.item() == pytest.approx((LOSSES[0] + second) / 2)


def test_a_positive_without_any_negative_has_no_loss_and_no_gradient() -> None:
    vectors = HAND.clone().requires_grad_()
    loss = loss_of(hand_pattern([[True, True], [True, True]]), vectors)
    loss.backward()
    assert loss.item() == 0.0
    assert not vectors.grad.any()


def test_sl_at_k_weighs_each_positive_by_its_distance_from_the_users_threshold() -> None:
    found = loss_of(hand_pattern([[False] * 2] * 2), HAND, torch.tensor([0.9, -math.inf]))
    weight = 1 / (1 + math.exp(-(1.0 - 0.9) / 0.25))
    assert found.item() == pytest.approx((weight * LOSSES[0] + LOSSES[1]) / 2)


def squared_loss_of(known: list[list[bool]]) -> float:
    """Scores, user 0: 10 with item 2, 0 with 3, 6 with 4; user 1: 1.5 with item 3, 12 with 4."""
    objective = SquaredError(0.5)
    pattern = hand_pattern(known)
    return float(objective.loss(pattern, objective.sums(pattern, HAND, MULTIPLY), None))


def test_squared_errors_are_of_1_for_positives_and_of_0_for_the_groups_negatives() -> None:
    first = (1.0 - 10.0) ** 2 + 0.5 * (0.0**2 + 6.0**2) / 2
    second = (1.0 - 1.5) ** 2 + 0.5 * (1.5**2 + 12.0**2) / 2
    assert squared_loss_of([[False] * 2] * 2) == pytest.approx((first + second) / 2)


def test_squared_errors_of_items_that_the_user_has_are_0() -> None:
    first = (1.0 - 10.0) ** 2 + 0.5 * (0.0**2 + 6.0**2) / 2
    second = (1.0 - 1.5) ** 2 + 0.5 * 12.0**2 / 2
    assert squared_loss_of([[False, False], [True, False]]) == pytest.approx((first + second) / 2)


def test_the_best_squared_score_is_the_lift_over_itself_and_the_weight() -> None:
    """Minimise the loss of one score over rows where it is a positive r times as often as a negative."""
    lift, weight = 3.0, 10.0
    score = torch.tensor([0.0], requires_grad=True)
    objective = SquaredError(weight)
    optimiser = torch.optim.LBFGS([score], line_search_fn="strong_wolfe")
    pattern = hand_pattern([[False] * 2] * 2)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        positives, negatives = score.expand(2), score.expand(2, 2)
        as_positive = objective.loss(pattern, (positives, torch.zeros(2, 2)), None)
        as_negative = objective.loss(pattern, (torch.ones(2), negatives), None)
        loss = lift * as_positive + as_negative
        loss.backward()
        return loss

    optimiser.step(closure)
    assert score.item() == pytest.approx(lift / (lift + weight), rel=1e-4)


def test_a_vectors_length_changes_no_cosine() -> None:
    lengths = torch.tensor([[3.0], [0.1], [7.0], [2.0], [0.5]])
    pattern = hand_pattern([[False] * 2] * 2)
    assert loss_of(pattern, HAND * lengths).item() == pytest.approx(loss_of(pattern, HAND).item(), rel=1e-6)


def test_a_zero_vector_has_cosines_of_zero_and_a_finite_gradient() -> None:
    vectors = HAND.clone()
    vectors[0] = 0.0
    vectors.requires_grad_()
    loss = loss_of(hand_pattern([[False] * 2] * 2), vectors)
    loss.backward()
    assert loss.item() == pytest.approx((math.log(3) + LOSSES[1]) / 2)
    assert torch.isfinite(vectors.grad).all()


def test_vectors_of_length_one_have_cosines_as_products() -> None:
    found = normalised(torch.cat([HAND, torch.zeros(1, 2)]))
    assert found[3].tolist() == [0.0, 1.0]
    assert found[4].tolist() == pytest.approx([0.6, 0.8])
    assert found[5].tolist() == [0.0, 0.0]


def test_the_settings_name_the_objective() -> None:
    assert build_objective(TrainSettings()) is BPR
    found = build_objective(TrainSettings(objective="sl@k", temperature=0.2, weight_temperature=0.5))
    assert found == CosineSoftmax(0.2, 0.1)


def dense_loss(
    model: Edda, world: MultiDomainData, number: int, batch: Batch, vectors: torch.Tensor, thresholds: torch.Tensor
) -> torch.Tensor:
    """SL@K of a batch row by row, in float64, with the penalty of each row's user, positive and negative."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    rows = torch.from_numpy(batch.nodes).long()[batch.pattern.picks.forward.indices.view(3, -1).long()]
    size, total = batch.pattern.known.shape[1], torch.zeros((), dtype=torch.float64)
    for row in range(batch.size):
        start = min(row // size * size, batch.size - size)
        user, positive = unit[rows[0, row]], unit[rows[1, row]]
        others = [unit[rows[2, start + j]] @ user for j in range(size) if not batch.pattern.known[row, j]]
        cosine = user @ positive
        losses = torch.logsumexp(torch.stack([cosine, *others]) / 0.3, 0) - cosine / 0.3
        weight = torch.sigmoid((cosine.detach() - thresholds[rows[0, row]]) / 0.6)
        total = total + losses * weight
        for node in rows[:, row].tolist():
            for table in model.inter:
                union = int(world.domains[number].union_nodes[node])
                total = total + PENALTIES[0] * 0.5 * table[union].double().square().sum()
            if number in model.intra:
                total = total + PENALTIES[1] * 0.5 * model.intra[number][node].double().square().sum()
    return total / batch.size


@pytest.mark.parametrize(("backbone", "layers", "tables"), CASES)
def test_loss_and_gradients_of_a_pruned_step_equal_the_dense_formula(
    tiny_world: Tiny, backbone: str, layers: int, tables: str
) -> None:
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    number, domain = 1, world.domains[1]
    blocks = build_backbone(TrainSettings(backbone=backbone, layers=layers))
    network = build_graphs(world, blocks, MULTIPLY)
    positives = build_positives(load_interactions(tiny_world.parents["interactions"], domain, world), domain, "clean")
    batch = next(build_batches(positives, 1, 1, Batching(32, 7, grouped=True)))
    nothing = Dropout(0.0, (np.uint64(0),) * layers)
    rows = domain.union_nodes[batch.nodes]
    inter = sample_subgraph(network.inter, rows, blocks, nothing) if tables != "intra" else None
    intra = sample_subgraph(network.intra[number], batch.nodes, blocks, nothing) if tables != "inter" else None
    domains = {domain.name: domain.nodes for domain in world.domains}
    pruned, dense = (Edda(TableShapes(tables, 6, world.nodes, domains, False, 4), 3) for _ in range(2))
    thresholds = torch.linspace(-0.5, 0.5, domain.users)
    step = RankingStep(number, inter, intra, batch.pattern, batch.counts, thresholds)
    found = pruned.loss(step, PENALTIES, MULTIPLY, CosineSoftmax(0.3, 0.6))
    vectors = final_vectors(dense, world, number, backbone, layers, 0.1, union=True)
    expected = dense_loss(dense, world, number, batch, vectors, thresholds.double())
    found.backward()
    expected.backward()
    assert batch.pattern.known.any()
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert_gradients_are_close(pruned, dense, atol=1e-6, rtol=1e-4)


def test_final_vectors_of_both_tables_are_normalised_together(tiny_world: Tiny) -> None:
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    domains = {domain.name: domain.nodes for domain in world.domains}
    model = Edda(TableShapes("both", 6, world.nodes, domains, False, 4), 3)
    network = build_graphs(world, build_backbone(TrainSettings()), MULTIPLY)
    for number, found in enumerate(pruned_vectors(model, network, normalised=True)):
        whole = final_vectors(model, world, number, "grec", 2, 0.1, union=True).detach()
        torch.testing.assert_close(found.double(), torch.nn.functional.normalize(whole, dim=1), atol=1e-6, rtol=1e-5)
