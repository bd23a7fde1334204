import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, outer
from metalearn._tree import tree_detach, tree_map
from metalearn.inner import _linear_optimizer
from tests.cases import relative_difference, sine_episodes, sine_learner


def random_case():
    """Return a rule, gradients of two tensors, random meta-parameters and the updates."""
    torch.manual_seed(0)
    rule = inner.LinearOptimizer(0.1)
    grads = {"weight": torch.randn(2, 3).double(), "bias": torch.randn(2).double()}
    meta = tree_map(torch.randn_like, rule.init_meta(grads))
    updates, _ = rule.update(meta, grads, (), grads, torch.zeros(()), 0)
    return rule, grads, meta, updates


def test_is_equation_2_on_the_vector_of_all_elements():
    _, grads, meta, updates = random_case()
    vector = torch.cat([grads["weight"].reshape(-1), grads["bias"]])
    expected = -(meta["A"] @ vector + meta["b"])
    torch.testing.assert_close(updates["weight"], expected[:6].reshape(2, 3))
    torch.testing.assert_close(updates["bias"], expected[6:])


def test_starts_as_gradient_descent(episodes):
    ours = sine_learner(inner.LinearOptimizer(0.05)).adapt(episodes.support)
    plain = sine_learner(inner.SGD(0.05)).adapt(episodes.support)
    assert relative_difference(ours.params, plain.params) < 1e-12


def test_a_kronecker_product_is_one_of_its_matrices():
    torch.manual_seed(0)
    kronecker = inner.KroneckerLinear(0.3, bias=True)
    grads = {"w": torch.randn(3, 4, dtype=torch.float64)}
    factors = tree_map(torch.randn_like, kronecker.init_meta(grads))
    w = factors["w"]
    # rows are stacked here, columns in the paper
    meta = {
        "A": 0.3 * torch.kron(w["L"], w["R"].T.contiguous()),
        "b": 0.3 * w["b"].reshape(-1),
    }
    seen = grads, (), grads, torch.zeros(()), 0
    ours, _ = inner.LinearOptimizer(0.1).update(meta, *seen)
    theirs, _ = kronecker.update(factors, *seen)
    torch.testing.assert_close(ours, theirs)


def test_the_newton_step_is_one_of_its_matrices():
    """With A the inverse Hessian one step solves a least-squares problem."""
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)
    rule, params = inner.LinearOptimizer(0.1), {"w": torch.randn(3, 1, dtype=torch.float64)}
    grad = torch.func.grad(lambda w: F.mse_loss(x @ w, y))(params["w"])
    meta = {"A": torch.linalg.inv(2 * x.T @ x / 8), "b": torch.zeros(3, dtype=torch.float64)}
    updates, _ = rule.update(meta, {"w": grad}, (), params, torch.zeros(()), 0)
    solution = torch.linalg.lstsq(x, y).solution
    torch.testing.assert_close(params["w"] + updates["w"], solution)


def test_the_meta_gradient_is_that_of_a_loop_by_hand():
    learner = sine_learner(inner.LinearOptimizer(0.05), num_steps=2)
    episodes, meta = sine_episodes(1), tree_detach(learner.meta)
    one = tree_map(lambda leaf: leaf[0], episodes)
    matrix, offset = (meta.rule[name].clone().requires_grad_() for name in ("A", "b"))
    params = meta.init
    for step in range(2):
        params = {name: param.requires_grad_() for name, param in params.items()}
        loss = learner.problem.support_loss(params, meta.shared, one, step)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        change = matrix @ torch.cat([grad.reshape(-1) for grad in grads]) + offset
        parts = change.split([param.numel() for param in params.values()])
        moved = zip(params.items(), parts, strict=True)
        params = {name: param - part.reshape(param.shape) for (name, param), part in moved}
    expected = torch.autograd.grad(
        learner.problem.query_loss(params, meta.shared, one), [matrix, offset]
    )
    ours = learner.estimate(episodes).gradient.rule
    assert relative_difference([ours["A"], ours["b"]], expected) < 1e-10


def test_a_matrix_for_every_tensor_is_one_of_a_group():
    names = ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    rule = inner.Groups({name: inner.LinearOptimizer(0.1) for name in names})
    sizes = [len(meta["A"]) for meta in sine_learner(rule).meta.rule]
    assert sizes == [6, 6, 36, 6, 6, 1]


def test_too_many_elements_are_refused_before_anything_is_allocated(monkeypatch):
    monkeypatch.setattr(_linear_optimizer.torch, "eye", lambda *_, **__: pytest.fail("allocated"))
    with pytest.raises(ValueError, match="up to 4,096 elements; got 10,001, whose matrix has 100,"):
        inner.LinearOptimizer(0.1).init_meta(dict(nn.Linear(10_000, 1).named_parameters()))


def test_what_the_error_advises_works():
    module = nn.Linear(4_095, 2)
    params = dict(module.named_parameters())
    with pytest.raises(ValueError, match=r"Use LowRank\(0.1, rank=4, identity=True\), or Kron"):
        outer.MAML(module, F.mse_loss, inner.LinearOptimizer(0.1), num_steps=1)
    for rule in (inner.LowRank(0.1, rank=4, identity=True), inner.KroneckerLinear(0.1)):
        assert rule.init_meta(params).keys() == params.keys()


def test_as_many_elements_as_may_be():
    assert inner.LinearOptimizer(0.1).init_meta({"w": torch.zeros(4_096)})["A"].shape == (
        4_096,
        4_096,
    )


@pytest.mark.parametrize(("lr", "error"), [(0.0, ValueError), ("fast", TypeError)])
def test_bad_rate(lr, error):
    with pytest.raises(error, match=r"LinearOptimizer's lr must .* Write LinearOptimizer\(lr="):
        inner.LinearOptimizer(lr)
