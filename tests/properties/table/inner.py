"""Update rules: each must take a finite meta-step, of both orders, in a learner."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from metalearn import inner, models, outer
from metalearn._tree import tree_leaves
from tests.cases import sine_episodes
from tests.properties.entry import Entry
from tests.properties.strategies import BOOLS, COUNTS, KEYS, PLAIN_RULES, POSITIVE, RATES

RATE = {"lr": RATES}
ACTIVATIONS = st.sampled_from(["relu", "tanh", torch.sin])
SCHEDULES = st.sampled_from([inner.WarmUp(2), inner.Cosine(3), torch.sigmoid])
BETAS = st.sampled_from([(0.9, 0.999), (0.0, 0.5), [0.5, 0.5]])


def learns(rule, /, **_):
    """Estimate a meta-gradient, which is finite or said not to be, and adapt."""
    torch.manual_seed(0)
    model = models.mlp(1, [3], 1).double()
    learner = outer.MetaLearner(model, F.mse_loss, rule, num_steps=2)
    estimate = learner.estimate(sine_episodes(num_tasks=2))
    finite = estimate.loss.isfinite()
    assert torch.equal(estimate.diagnostics["finite"].bool() | finite, finite)
    assert estimate.diagnostics["finite"].all() == all(
        leaf.isfinite().all() for leaf in tree_leaves(estimate.gradient)
    )
    assert learner.adapt(sine_episodes(num_tasks=2).support, 3).loss(
        sine_episodes(num_tasks=2).query
    ).shape == (2,)


def rule(kind, wrong=None, /, **arguments):
    return Entry(
        kind, arguments, learns, wrong or {}, functions=frozenset({"activation", "schedule"})
    )


def schedule(kind, /, **arguments):
    def works(made, /, **_):
        factors = made(torch.arange(20.0))
        assert ((factors >= 0) & (factors <= 1)).all()

    return Entry(kind, arguments, works, functions=frozenset({"then"}))


def optimized(rule, meta, named_parameters, key):
    torch.manual_seed(0)
    module = torch.nn.Linear(2, 1)
    given = isinstance(named_parameters, str) and named_parameters == "of the module"
    if isinstance(meta, str) and isinstance(rule, inner.UpdateRule):
        meta = rule.init_meta(dict(module.named_parameters()))
    optimizer = inner.as_optimizer(
        rule, meta, module.named_parameters() if given else named_parameters, key=key
    )

    def closure():
        optimizer.zero_grad()
        loss = module(torch.ones(3, 2)).mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).isfinite()


ENTRIES = {
    "SGD": rule(inner.SGD, **RATE),
    "Momentum": rule(
        inner.Momentum, **RATE, momentum=st.floats(0, 1), dampening=st.sampled_from([0, 0.5])
    ),
    "Nesterov": rule(inner.Nesterov, **RATE, momentum=st.floats(0, 1)),
    "Adam": rule(inner.Adam, **RATE, betas=BETAS, eps=st.just(1e-8)),
    "AdamW": rule(
        inner.AdamW, **RATE, betas=BETAS, eps=st.just(1e-8), weight_decay=st.floats(0, 1)
    ),
    "RMSProp": rule(inner.RMSProp, **RATE),
    "LearnedRate": rule(
        inner.LearnedRate,
        rule=PLAIN_RULES,
        per=st.sampled_from(["scalar", "tensor", "parameter"]),
        num_steps=COUNTS,
    ),
    "MetaSGD": rule(inner.MetaSGD, **RATE),
    "Learned": rule(
        inner.Learned,
        {"names": st.sampled_from([(), ("lr", "lr"), "learning_rate", ("lr", 3), ["lr"]])},
        rule=PLAIN_RULES,
        names=st.sampled_from(["lr", ("lr",)]),
        space=st.sampled_from(["linear", "log", "logit"]),
        per=st.sampled_from(["scalar", "tensor"]),
    ),
    "WeightDecay": rule(inner.WeightDecay, rule=PLAIN_RULES, decay=st.floats(0, 1)),
    "Scheduled": rule(inner.Scheduled, rule=PLAIN_RULES, schedule=SCHEDULES),
    "WarmUp": schedule(inner.WarmUp, num_steps=POSITIVE, then=SCHEDULES),
    "Cosine": schedule(inner.Cosine, num_steps=POSITIVE, final=st.floats(0, 1)),
    "Groups": rule(
        inner.Groups,
        {
            "rules": st.sampled_from(
                [{}, {"*": 3}, {3: inner.SGD(0.1)}, (("*",),), {"x": inner.SGD(1)}]
            )
        },
        rules=st.dictionaries(st.sampled_from(["0", "*bias"]), PLAIN_RULES).map(
            lambda rules: {**rules, "*": inner.SGD(0.1)}
        ),
    ),
    "Clipped": rule(inner.Clipped, rule=PLAIN_RULES, norm=POSITIVE),
    "Masked": rule(inner.Masked, rule=PLAIN_RULES, temperature=POSITIVE, hard=BOOLS),
    "LSTM": rule(
        inner.LSTM, lr=RATES, hidden_size=COUNTS, forget_bias=POSITIVE, gate_range=POSITIVE
    ),
    "Turtle": rule(
        inner.Turtle,
        {
            "inputs": st.sampled_from([(), ("grad", "grad"), ("gradient",), (3,)]),
            "hidden": st.sampled_from([(0,), (2.0,)]),
        },
        inputs=st.sampled_from(
            [("grad",), ["loss", "step"], ("grad_history", "update_history", "processed_grad")]
        ),
        hidden=st.sampled_from([(), (2,), [2, 2]]),
        activation=ACTIVATIONS,
        beta=st.floats(0, 1),
        **RATE,
        loss_as_value=BOOLS,
        applied_updates=BOOLS,
    ),
    "KroneckerLinear": rule(inner.KroneckerLinear, **RATE, bias=BOOLS),
    "KroneckerNetwork": rule(
        inner.KroneckerNetwork, **RATE, num_layers=COUNTS, activation=ACTIVATIONS, normalise=BOOLS
    ),
    "KroneckerRNN": rule(inner.KroneckerRNN, **RATE, activation=ACTIVATIONS),
    "LinearOptimizer": rule(inner.LinearOptimizer, **RATE),
    "LowRank": rule(inner.LowRank, **RATE, rank=COUNTS, identity=BOOLS),
    "MetaCurvature": rule(inner.MetaCurvature, **RATE),
    "SelfAdapting": rule(
        inner.SelfAdapting, rule=st.sampled_from([inner.MetaSGD(0.1), inner.LowRank(0.1)]), **RATE
    ),
    "t_net": Entry(
        inner.t_net,
        {"model": st.builds(lambda: models.mlp(1, [2], 1))},
        lambda made, /, **_: list(made.parameters()),
    ),
    "as_optimizer": Entry(
        optimized,
        {
            "rule": st.sampled_from([inner.SGD(0.1), inner.MetaSGD(0.1), inner.Adam(0.1)]),
            "meta": st.just("of the rule"),
            "named_parameters": st.just("of the module"),
            "key": KEYS,
        },
    ),
    **{
        function.__name__: Entry(
            function,
            {
                "meta": st.builds(
                    lambda: inner.Masked(inner.SGD(0.1)).init_meta({"w": torch.zeros(2, 3)})
                )
            },
            lambda fractions, /, **_: float(fractions["w"]),
            {
                "meta": st.sampled_from(
                    [
                        {"mask": 3},
                        {"mask": {}},
                        {"mask": {"a": {"logits": "x"}}},
                        {"rule": {"rule": ()}},
                    ]
                )
            },
        )
        for function in (inner.adapted_fraction, inner.kept_fraction)
    },
}

EXCLUDED = {
    "UpdateRule": "abstract",
    "Rated": "abstract",
    "Wrapper": "abstract",
    "GradientTransform": "abstract",
    "Step": "a plain tuple, which step returns",
    "RuleOptimizer": "made by as_optimizer",
    "step": "pure engine of learners, which check its arguments: it runs inside transforms",
    "adapt": "pure engine of learners, which check its arguments: it runs inside transforms",
}
