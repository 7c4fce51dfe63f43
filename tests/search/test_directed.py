"""The parts of directed search: tempered chains, and the bandit that chooses operators."""

from dataclasses import replace

import numpy as np

from lmfuzz.search.bandit import Bandit
from lmfuzz.search.tempering import COLDEST, HOTTEST, Chains
from lmfuzz.types import Batch


def rows(*symbols: int) -> Batch:
    """Rows of one symbol each, so that a row can be told by its symbol."""
    return Batch.of([np.array([symbol]) for symbol in symbols])


def chains(*margins: float, scale: float = 1.0) -> Chains:
    return Chains(rows(*range(len(margins))), np.array(margins), scale)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_temperatures_are_geometric_and_scaled():
    temperatures = chains(*[-1.0] * 5, scale=0.5).temperatures
    assert np.isclose(temperatures[[0, -1]], [COLDEST / 2, HOTTEST / 2]).all()
    assert np.allclose(temperatures[1:] / temperatures[:-1], temperatures[1] / temperatures[0])


def test_the_best_of_a_chains_mutants_challenges_it():
    some = chains(-5.0, -5.0)
    assert some.parents(6).tolist() == [0, 1, 0, 1, 0, 1]
    accepted = some.accept(rows(10, 11, 12, 13, 14, 15), np.array([-4, -9, -3, -8, -4.5, -4.0]), rng())
    assert accepted.tolist() == [False, False, True, False, False, True]
    assert some.rows.data[:, 0].tolist() == [12, 15]
    assert some.margins.tolist() == [-3, -4]


def test_mutants_that_do_not_fill_the_last_round():
    some = chains(-5.0, -5.0, -5.0)
    accepted = some.accept(rows(10, 11, 12, 13), np.array([-4, -4.0, -4, -3]), rng())
    assert accepted.tolist() == [False, True, True, True]
    assert some.rows.data[:, 0].tolist() == [13, 11, 12]


def test_metropolis_rule():
    """A loss d is accepted at temperature T with probability exp(-d / T)."""
    loss = 0.3
    counts = np.zeros(2)
    for seed in range(2000):
        some = chains(-1.0, -1.0)
        counts += some.accept(rows(10, 11), np.full(2, -1 - loss), rng(seed))
    expected = np.exp(-loss / np.array([COLDEST, HOTTEST]))
    assert np.allclose(counts / 2000, expected, atol=0.04)


def test_better_rows_move_to_colder_chains():
    some = chains(-9.0, -8.0, -7.0, -1.0)
    some.exchange(rng())
    assert some.margins[0] == -1.0, "a swap that gains is always made, all the way down"
    assert some.rows.data[:, 0].tolist()[0] == 3
    assert sorted(some.margins.tolist()) == [-9.0, -8.0, -7.0, -1.0]


def test_renewing_leaves_the_cold_half_alone():
    some = chains(-1.0, -2.0, -3.0, -4.0)
    other = replace(rows(20, 21), origin=np.array([7, 8]), parent=np.array([5, 6]))
    some.renew(other, np.array([-8.0, -9.0]))
    assert some.rows.data[:, 0].tolist() == [0, 1, 20, 21]
    assert some.rows.origin.tolist()[2:] == [7, 8], "they descend from other seeds"
    assert some.rows.parent.tolist()[2:] == [5, 6]
    assert some.margins.tolist() == [-1.0, -2.0, -8.0, -9.0]


def test_the_bandit_prefers_what_pays_and_forgets_nothing_for_good():
    bandit = Bandit(4, rng())
    for _ in range(200):
        drawn = bandit.draw(8)
        bandit.reward(drawn, (drawn == 2) & (rng(1).random(8) < 0.5))
    share = np.bincount(bandit.draw(4000), minlength=4) / 4000
    assert share[2] > 0.7
    assert share.min() > 0.03


def test_the_bandit_follows_a_change():
    bandit = Bandit(2, rng())
    for paying in (0, 1):
        for _ in range(3000):
            drawn = bandit.draw(8)
            bandit.reward(drawn, drawn == paying)
        share = np.bincount(bandit.draw(4000), minlength=2) / 4000
        assert share[paying] > 0.7
