from itertools import pairwise

import pytest
import torch
from torch.func import vmap

from metalearn import outer


def system(size=6, scale=0.5):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    hessian = root @ root.T
    matrix = torch.eye(size).double() + scale * hessian / torch.linalg.eigvalsh(hessian).max()
    return matrix, torch.randn(size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    "solver", [outer.CG(6), outer.CG(40), outer.Neumann(80), outer.Direct()], ids=str
)
def test_solves(solver):
    matrix, target = system()
    x, residual, _ = solver(lambda vector: matrix @ vector, target)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, target), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(residual, target - matrix @ x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [outer.CG(2), outer.Neumann(3)], ids=str)
def test_reports_what_is_left(solver):
    matrix, target = system(scale=5.0)
    x, residual, _ = solver(lambda vector: matrix @ vector, target)
    torch.testing.assert_close(residual, target - matrix @ x, rtol=1e-10, atol=1e-12)
    assert residual.norm() > 1e-3


def test_each_step_of_cg_halves_the_error():
    matrix, target = system(20, scale=4.0)
    solution = torch.linalg.solve(matrix, target)
    errors = [
        (outer.CG(n)(lambda v: matrix @ v, target)[0] - solution).norm() for n in (1, 3, 5, 7)
    ]
    assert all(later < 0.5 * earlier for earlier, later in pairwise(errors))


def test_one_term_of_neumann_ignores_the_curvature():
    matrix, target = system()
    assert torch.equal(outer.Neumann(1)(lambda v: matrix @ v, target)[0], target)


def test_a_lower_rate_makes_the_series_converge():
    matrix, target = system(scale=5.0)
    x, *_ = outer.Neumann(300, rate=0.3)(lambda v: matrix @ v, target)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, target))
    assert outer.Neumann(300)(lambda v: matrix @ v, target)[1].norm() > 1e6


def test_damping_is_added_to_the_diagonal():
    matrix, target = system()
    x, *_ = outer.CG(10, damping=2.0)(lambda v: matrix @ v, target)
    torch.testing.assert_close(x, torch.linalg.solve(matrix + 2 * torch.eye(6).double(), target))


@pytest.mark.parametrize("solver", [outer.CG(3, damping=0.5), outer.Neumann(3, 0.4)], ids=str)
def test_goes_on_from_a_guess(solver):
    """It solves for what the guess leaves: both methods are equivariant under translations."""
    matrix, target = system(scale=3.0)
    damping = getattr(solver, "damping", 0.0) * torch.eye(6).double()
    guess = torch.linspace(-1, 1, 6).double()
    x, residual, _ = solver(lambda v: matrix @ v, target, guess)
    left = target - (matrix + damping) @ guess
    step, expected, _ = solver(lambda v: matrix @ v, left)
    torch.testing.assert_close(x, guess + step, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(residual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", [outer.CG(1), outer.Neumann(1), outer.Direct()], ids=str)
def test_stays_at_a_guess_that_solves(solver):
    matrix, target = system()
    solution = torch.linalg.solve(matrix, target)
    x, residual, _ = solver(lambda v: matrix @ v, target, solution)
    torch.testing.assert_close(x, solution, rtol=1e-12, atol=1e-12)
    assert residual.norm() < 1e-12


@pytest.mark.parametrize("solver", [outer.CG(5), outer.Neumann(5), outer.Direct()], ids=str)
def test_a_solved_system_stays_solved(solver):
    """A zero target, and one that the first step solves exactly, under vmap beside one that is
    neither."""
    targets = torch.stack([torch.zeros(6), torch.eye(6)[0], torch.ones(6)]).double()
    x, residual, _ = vmap(lambda target: solver(lambda v: v, target))(targets)
    assert torch.equal(x, targets)
    assert not residual.any()


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: outer.CG(0), ValueError, "CG's num_steps must be at least 1; got 0"),
        (
            lambda: outer.CG(5, damping=-1.0),
            ValueError,
            "CG's damping must be at least 0; got -1.0. Write CG(5, dam",
        ),
        (lambda: outer.Neumann(2.5), TypeError, "Neumann's num_steps must be an int"),
        (
            lambda: outer.Implicit(-1.0),
            ValueError,
            "strength must be at least 0; got -1.0. The paper's is",
        ),
        (lambda: outer.Implicit(1.0, outer.CG), TypeError, "Write CG(...)."),
        (lambda: outer.Implicit(1.0, proximal="last"), ValueError, "Did you mean 'last_step'?"),
        (
            lambda: outer.Implicit(1.0, system_strength=-1.0),
            ValueError,
            "system_strength must be at least 0",
        ),
        (
            lambda: outer.Implicit(0.0, proximal="last_step"),
            ValueError,
            'strength with proximal="last_step" must be positive; got 0.0. Leave proximal',
        ),
        (
            lambda: outer.Implicit(1.0, epsilon=0.0),
            ValueError,
            "epsilon must be positive and finite; got 0.0. Write epsilon=0.01, or None.",
        ),
        (
            lambda: outer.Implicit(1.0, outer.Direct(), epsilon=0.01),
            ValueError,
            "solver with epsilon must be iterative; got Direct(). Write outer.CG(20), or leave",
        ),
        (lambda: outer.Implicit(1.0, warm_start=1), TypeError, "warm_start must be True or False"),
    ],
)
def test_refuses(build, error, message):
    with pytest.raises(error) as raised:
        build()
    assert message in str(raised.value)


@pytest.mark.parametrize("tolerance", [0.5, 1e-2, 1e-6])
def test_cg_stops_where_the_residual_is_small_enough(tolerance):
    matrix, target = system(20, scale=50.0)

    def product(vector):
        return matrix @ vector

    x, residual, count = outer.CG(40, tolerance=tolerance)(product, target)
    assert 0 < count < 40
    assert residual.norm() <= tolerance * target.norm()
    before = outer.CG(int(count) - 1)(product, target) if count > 1 else None
    assert before is None or before.residual.norm() > tolerance * target.norm()
    same = outer.CG(int(count))(product, target)
    assert torch.equal(x, same.x)
    assert torch.equal(residual, same.residual)
    assert (x - torch.linalg.solve(matrix, target)).norm() <= tolerance * target.norm()


def test_each_system_stops_for_itself():
    matrix, target = system(20, scale=50.0)
    easy = torch.linalg.eigh(matrix).eigenvectors[:, 0]  # one step solves it
    targets = torch.stack([target, easy])
    _, _, counts = vmap(lambda target: outer.CG(15, tolerance=1e-6)(lambda v: matrix @ v, target))(
        targets
    )
    assert counts[1] == 1
    assert counts[0] > 5


@pytest.mark.parametrize("guess", [False, True])
def test_a_solved_system_takes_no_step(guess):
    matrix, target = system()
    solution = torch.linalg.solve(matrix, target)
    given = (target, solution) if guess else (torch.zeros(6).double(),)
    x, _, count = outer.CG(4, tolerance=1e-3)(lambda v: matrix @ v, *given)
    assert count == 0
    assert torch.equal(x, solution if guess else given[0])


def test_solvers_count_their_steps():
    matrix, target = system()
    solvers = [outer.CG(3), outer.Neumann(4), outer.Direct()]
    assert [int(each(lambda v: matrix @ v, target).num_steps) for each in solvers] == [3, 4, 1]
