import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import baselines, data, evaluate, fit, functional, inner, models, outer
from metalearn.baselines import Transfer

IMAGES = data.ClassImages(torch.randint(256, (6, 12, 8, 8), generator=torch.manual_seed(0)).byte())


def easy_classes(count=8):
    """Classes that a linear model can tell apart: each has a bright row or column of its own."""
    pixels = torch.randint(
        60, (count, 20, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    for label in range(count):
        pixels[label, :, label] += 120
    return data.ClassImages(pixels)


def accuracy(learner, classes, **options):
    tasks = data.EpisodeSampler(classes, n_way=3, k_shot=4, num_query=5)
    metrics = {"accuracy": functional.accuracy}
    generator = torch.Generator().manual_seed(1)
    return evaluate(learner, tasks, num_tasks=8, metrics=metrics, generator=generator, **options)[
        "accuracy"
    ].mean


def test_training_from_scratch_learns_a_task_and_has_nothing_else_to_learn():
    learner = baselines.TrainFromScratch(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    assert list(learner.parameters()) == []
    assert (
        accuracy(learner, easy_classes(), num_steps=0)
        < 0.6
        < 0.9
        < accuracy(learner, easy_classes())
    )


@pytest.mark.parametrize("centroids", [False, True])
def test_a_pretrained_body_is_frozen_and_its_head_anew(centroids):
    classes = easy_classes()
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
    head = baselines.CosineHead(16, 8) if centroids else nn.Linear(16, 8)
    pretraining = baselines.Pretraining(nn.Sequential(body, head))
    optimizer = torch.optim.Adam(pretraining.parameters(), lr=1e-2)
    history = fit(
        pretraining,
        data.MiniBatches(classes, 16),
        optimizer,
        100,
        meta_batch_size=1,
        progress=False,
    )
    assert history.loss[-10:].mean() < 0.7 * history.loss[:10].mean()
    before = copy.deepcopy(body.state_dict())
    rule = inner.Adam(0.03)
    finetuning = (
        baselines.CentroidFinetuning(body, 16, 3, rule=rule),
        baselines.Finetuning(body, nn.Linear(16, 3), rule=rule),
    )
    learner, names = (
        finetuning[not centroids],
        (["head.weight", "head.bias"], ["head.centroids"])[centroids],
    )
    assert list(learner.meta.init) == names
    assert not any(param.requires_grad for param in learner.parameters())
    assert accuracy(learner, classes) > 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.state_dict().items())
    assert all(param.requires_grad for param in body.parameters())


def test_baselines_run_on_images_with_batch_norm():
    model = models.conv4(1, 6, num_filters=4, num_layers=2, batch_statistics="support")
    few = Transfer(batch_size=2, select_every=1)
    learner = baselines.Finetuning(model.features, nn.Linear(4, 3), num_steps=2, estimator=few)
    tasks = data.EpisodeSampler(IMAGES, 3, 2, 3)
    assert evaluate(learner, tasks, num_tasks=3).batch_statistics == "support"


def test_logits_are_cosines_whatever_the_lengths():
    head, features = baselines.CosineHead(4, 3, scale=5.0), torch.randn(6, 4)
    expected = 5 * F.cosine_similarity(features[:, None], head.centroids, dim=-1)
    with torch.no_grad():
        head.centroids.mul_(torch.tensor([[0.1], [1.0], [10.0]]))
    torch.testing.assert_close(head(7 * features), expected)


def pretraining(num_outputs=8):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
    return baselines.Pretraining(nn.Sequential(body, nn.Linear(16, num_outputs)), num_steps=2)


TASKS = data.EpisodeSampler(easy_classes(), n_way=3, k_shot=4, num_query=5)
ANEW = (
    r"labels under Transfer.* must number the 8 classes of the model's outputs, "
    r"the same ones in every task; "
    r"got tasks of 3 classes that each numbers anew. .*Finetuning\(body, nn.Linear\(width, 3\)\)"
)


@pytest.mark.parametrize(
    "use",
    [
        lambda learner, trained: evaluate(learner, TASKS, num_tasks=2),
        lambda learner, trained: evaluate([learner, learner], TASKS, num_tasks=2),
        lambda learner, trained: evaluate(learner, [TASKS.sample(2)], num_tasks=2),
        lambda learner, trained: trained(data.MiniBatches(easy_classes(), 16), validate=TASKS),
        lambda learner, trained: trained(TASKS),
        lambda learner, trained: trained([TASKS.sample(2)], meta_batch_size=None),
        lambda learner, trained: learner(TASKS.sample(2)),
    ],
    ids=["evaluate", "an ensemble", "episodes", "validate", "fit", "fit of episodes", "a call"],
)
def test_a_head_of_all_classes_is_not_judged_on_tasks_that_number_theirs_anew(use):
    learner = pretraining()
    before = learner.model[1].weight.detach().clone()

    def trained(batches, **options):
        optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
        return fit(
            learner, batches, optimizer, 3, **{"meta_batch_size": 2, "progress": False} | options
        )

    with pytest.raises(ValueError, match=ANEW):
        use(learner, trained)
    assert torch.equal(learner.model[1].weight, before)  # before anything is trained


def test_replicas_of_such_heads_are_refused_too():
    replicas = outer.Replicas([pretraining() for _ in range(2)])
    optimizer = torch.optim.SGD(replicas.parameters(), lr=1.0)
    batches = data.MiniBatches(easy_classes(), 16)
    with pytest.raises(ValueError, match=ANEW):
        fit(replicas, batches, optimizer, 1, meta_batch_size=1, validate=TASKS, progress=False)


def test_the_advice_works_and_mini_batches_are_taken():
    learner, batches = pretraining(), data.MiniBatches(easy_classes(), 16)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)

    def validate(learner):
        head = baselines.Finetuning(learner.model[0], nn.Linear(16, 3), num_steps=2)
        return evaluate(head, TASKS, num_tasks=2)["loss"].mean

    options = {"meta_batch_size": 1, "progress": False}
    assert fit(learner, batches, optimizer, 2, validate=validate, **options).best_iteration == 2
    history = fit(
        learner, batches, optimizer, 2, validate=batches, num_validation_steps=0, **options
    )
    assert history.best_iteration == 2
    for small in (1, 2):  # of any classes, so of the first ones alone too
        for _ in range(40):
            pretraining(3)(data.MiniBatches(easy_classes(3), small).sample(1))


def test_heads_of_few_classes_may_have_more_outputs_than_a_task_has_classes():
    """Where every task learns what its labels mean."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
    evaluate(baselines.Finetuning(body, nn.Linear(16, 8), num_steps=1), TASKS, num_tasks=2)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    evaluate(baselines.TrainFromScratch(wide, num_steps=1), TASKS, num_tasks=2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    evaluate(outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=1), TASKS, num_tasks=2)
