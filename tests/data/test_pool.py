import pytest
import torch

from metalearn.data import ClassImages, EpisodeSampler, Pool, Sinusoid

SINES = Sinusoid(k_shot=2, num_query=3)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def first_points(tasks, count, seed):
    return tasks.sample(count, generator=seeded(seed)).support.x[:, 0, 0]


def test_all_tasks_of_the_pool_come_and_no_others():
    pool = Pool(SINES, num_tasks=20, seed=0)
    drawn = first_points(pool, 400, 0).unique()
    assert len(drawn) == 20
    assert torch.equal(drawn, first_points(pool, 400, 1).unique())
    counts = first_points(pool, 4000, 2).unique(return_counts=True)[1]
    assert counts.min() > 120  # of 200 each


def test_a_task_is_the_same_whole_and_seeds_share_none():
    pool, other = Pool(SINES, 5, seed=0), Pool(SINES, 5, seed=1)
    episodes = pool.sample(50, generator=seeded(0))
    rows = torch.cat([leaf.flatten(1) for batch in episodes for leaf in (batch.x, batch.y)], 1)
    assert len(rows.unique(dim=0)) == 5
    points = set(first_points(pool, 50, 0).tolist())
    assert not points & set(first_points(other, 50, 0).tolist())


def test_a_seed_of_the_caller_chooses_and_the_global_one_is_left_alone():
    pool = Pool(SINES, 5, seed=0)
    before = torch.get_rng_state()
    assert torch.equal(first_points(pool, 9, 3), first_points(pool, 9, 3))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(pool.sample(30).query.y, pool.sample(30).query.y)


def test_padded_images():
    images = torch.randint(256, (6, 5, 4, 4), generator=seeded(0), dtype=torch.uint8)
    tasks = EpisodeSampler(ClassImages(images), n_way=(2, 4), k_shot=(1, 2), num_query=2)
    episodes = Pool(tasks, 3, seed=0).sample(40, generator=seeded(0))
    sizes = episodes.support.weight.sum(1)
    assert len(episodes.support.x.flatten(1).unique(dim=0)) == 3
    assert sizes.shape == (40,)
    assert len(sizes.unique()) <= 3


@pytest.mark.parametrize(("arguments", "text"), [((0,), "num_tasks"), ((3, -1), "seed")])
def test_bad_input(arguments, text):
    with pytest.raises(ValueError, match=f"Pool's {text} must be at least"):
        Pool(SINES, *arguments)
