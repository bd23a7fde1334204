import math

import torch

from metalearn.inner._coordinates import flatten, init_linear, preprocess, unflatten


def test_flattening_and_back():
    params = {"b": torch.randn(3), "a": torch.randn(2, 1, 2)}
    reordered = {"a": params["a"], "b": params["b"]}
    vector = flatten(reordered, params)
    assert torch.equal(vector[:3], params["b"])
    back = unflatten(vector, params)
    assert all(torch.equal(back[name], params[name]) for name in params)


def test_preprocessing_is_equation_11():
    x = torch.tensor([math.e**2, -math.e, math.exp(-10), 1e-6, 0.0, -1e-6], dtype=torch.float64)
    small = math.exp(10) * 1e-6
    expected = [[0.2, 1], [0.1, -1], [-1, 1], [-1, small], [-1, 0], [-1, -small]]
    torch.testing.assert_close(preprocess(x), torch.tensor(expected, dtype=torch.float64))


def test_preprocessing_has_finite_derivatives():
    x = torch.tensor([0.0, 1e-9, 2.0], dtype=torch.float64)
    first = torch.func.grad(lambda x: preprocess(x).sum())
    second = torch.func.grad(lambda x: first(x).sum())
    assert first(x).isfinite().all()
    assert second(x).isfinite().all()


def test_linear_layers_start_as_pytorchs():
    torch.manual_seed(0)
    layer = init_linear(4, 1000, torch.zeros((), dtype=torch.float64))
    assert layer["weight"].dtype == torch.float64
    assert 0.49 < layer["weight"].abs().max() <= 0.5
    assert not layer["bias"].any()
