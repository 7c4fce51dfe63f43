"""What every registered search promises, whatever its strategy."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from helpers import duel
from lmfuzz.inputs.corpus import Corpus, lineage
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators import OPERATORS
from lmfuzz.plugins.grammar import parse
from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search import SEARCHES
from lmfuzz.search.per_seed import traits_of
from lmfuzz.search.seed_outcomes import TracksSeeds, outcomes_of
from lmfuzz.storage.serialize import decode, encode
from lmfuzz.types import SEED, Batch, join

SPACE = TextSpace(tuple("abcde .\n"), 2, 20)
TARGETS = ("near", "far", "crash")
MOVES = ("splice", "delete", "tail", "substitute", "insert", "havoc")
OTHER_SETTINGS = (
    "tensorfuzz:sampler=uniform",
    "tensorfuzz:paper=false",
    "directed:explore=1",
    "directed:patience=1",
)
PER_SEED = [name for name in SEARCHES.names() if traits_of(SEARCHES.find(name)).per_seed]
NAMES = [*(name for name in SEARCHES.names() if name not in PER_SEED), *OTHER_SETTINGS]


class Parrot:
    """A sampler that repeats a row's last symbol, or draws another."""

    def sample(self, batch, new, temperature, rng):
        last = batch.data[np.arange(len(batch)), batch.lengths - 1]
        return ((last[:, None] + rng.integers(2, size=(len(batch), new))) % len(SPACE.symbols)).astype(
            np.int32
        )


class Run:
    """A search and all it stands on, asked and told like in the loop, without a target."""

    def __init__(self, name, seeds=7, seed=0, operators=MOVES, sampler=True):
        rng = np.random.default_rng(99)
        symbols = [rng.integers(8, size=rng.integers(2, 21), dtype=np.int32) for _ in range(seeds)]
        self.name, self.corpus, self.rng = name, Corpus(SPACE), np.random.default_rng(seed)
        self.context = SearchContext(
            space=SPACE, seeds=Batch.of(symbols), targets=TARGETS, corpus=self.corpus, rng=self.rng,
            operators={name: OPERATORS.build(parse(name)) for name in operators},
            sampler=Parrot() if sampler else None,
        )  # fmt: skip
        self.search = SEARCHES.build(parse(name), self.context)

    def spec_for_resume(self):
        """A new search that goes on from this one's state, as if it had been stopped and started again."""
        other = copy.copy(self)
        other.corpus, other.rng = copy.deepcopy(self.corpus), copy.deepcopy(self.rng)
        other.context = replace(self.context, corpus=other.corpus, rng=other.rng)
        other.search = SEARCHES.build(parse(self.name), other.context)
        other.search.restore(decode(encode(self.search.state())))
        return other

    def turn(self, size=16, margins=None, novel=None):
        batch = self.search.ask(size)
        if margins is None:
            margins = graded(batch, self.search.focus)
        if novel is None:
            novel = batch.data.sum(axis=1) % 5 == 0
        trace = {"text": np.array(SPACE.texts(batch), object), "crash": np.full(len(batch), "", object)}
        self.search.tell(batch, trace, margins, novel)
        return batch

    def turns(self, count, size=16, **told):
        return [self.turn(size, **told) for _ in range(count)]


def graded(batch, focus):
    """Margins (B, 3): how many a's and b's are missing, graded where in focus; with some hits and NaN."""
    valid = np.arange(batch.data.shape[1]) < batch.lengths[:, None]
    margins = np.full((len(batch), 3), -np.inf, np.float32)
    for column in (0, 1):
        count = ((batch.data == column) & valid).sum(axis=1)
        if column in focus:
            margins[:, column] = count - 6.5 - column
        margins[count > 6 + column, column] = 1
        margins[count == 0, column] = np.nan
    margins[batch.lengths % 7 == 0, 2] = 1
    return margins


def rows_of(batch):
    return [
        (tuple(batch.row(i).tolist()), int(batch.parent[i]), int(batch.operator[i]))
        for i in range(len(batch))
    ]


def assert_sound(run, batch, size, seeds):
    """A batch of mutants: of the size asked for, legal, from rows that are kept, by operators there are."""
    assert len(batch) == size
    assert SPACE.legal(batch).all()
    assert ((batch.parent >= 0) & (batch.parent < len(run.corpus))).all()
    assert ((batch.operator >= 0) & (batch.operator < len(MOVES))).all()
    assert (batch.data.dtype, batch.lengths.dtype) == (np.int32, np.int32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("seeds", "size"), [(7, 16), (7, 3), (7, 7), (1, 16), (20, 1), (1, 1)])
def test_seeds_come_first_each_once_and_then_mutants(name, seeds, size):
    run, handed_out = Run(name, seeds), []
    while sum(map(len, handed_out)) < seeds:
        batch = run.turn(size)
        assert 1 <= len(batch) <= size
        assert tuple(run.search.focus) in ((), (0, 1, 2))
        handed_out.append(batch)
    handed_out = join(handed_out)
    assert SPACE.texts(handed_out) == SPACE.texts(run.context.seeds)
    assert (handed_out.parent == SEED).all()
    assert (handed_out.operator == SEED).all()
    assert SPACE.texts(run.corpus[slice(0, seeds)]) == SPACE.texts(run.context.seeds)
    for _ in range(12):
        assert_sound(run, run.turn(size), size, seeds)


@pytest.mark.parametrize("name", NAMES)
def test_batches_may_change_their_size(name):
    run = Run(name)
    run.turns(3)
    for size in (16, 5, 1, 33, 16, 64):
        assert_sound(run, run.turn(size), size, 7)


@pytest.mark.parametrize("name", NAMES)
def test_mutants_differ_from_one_another_and_use_every_operator_allowed(name):
    run = Run(name)
    run.turn()
    batches = run.turns(60)
    texts = [SPACE.texts(batch) for batch in batches]
    assert sum(len(set(text)) for text in texts) > 0.6 * 60 * 16
    used = set(np.concatenate([batch.operator for batch in batches]).tolist())
    paper = name.startswith("tensorfuzz") and "paper=false" not in name
    assert used == ({1, 3, 4} if paper else set(range(len(MOVES))))


@pytest.mark.parametrize("name", NAMES)
def test_the_operators_named_are_those_that_made_the_rows(name):
    def signed(symbol):
        def sign(rows, near):
            data = rows.data.copy()
            data[:, 0] = symbol
            return replace(rows, data=data)

        return sign

    run = Run(name)
    for place, operator in enumerate(MOVES):
        run.context.operators[operator] = signed(place)
    run.search = SEARCHES.build(parse(name), run.context)
    run.turn()
    for batch in run.turns(10):
        np.testing.assert_array_equal(batch.operator, batch.data[:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_focus_names_columns_that_there_are(name):
    run, seen = Run(name), set()
    for _ in range(30):
        run.turn()
        focus = list(run.search.focus)
        assert all(0 <= column < len(TARGETS) for column in focus)
        assert len(set(focus)) == len(focus)
        seen.update(focus)
    assert seen in (set(), {0, 1}, {0, 1, 2})


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_makes_the_same_search_and_another_makes_another(name):
    one, same, other = Run(name, seed=3), Run(name, seed=3), Run(name, seed=4)
    batches = [[rows_of(batch) for batch in run.turns(15)] for run in (one, same, other)]
    assert batches[0] == batches[1]
    assert batches[0] != batches[2]
    assert batches[0][0] == batches[2][0], "the seeds are no matter of chance"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("before", [0, 1, 2, 3, 10, 60])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(name, before):
    unbroken = Run(name, seeds=20)  # two turns for the seeds
    unbroken.turns(before)
    resumed = unbroken.spec_for_resume()
    for _ in range(5):
        assert rows_of(resumed.turn()) == rows_of(unbroken.turn())
        assert list(resumed.search.focus) == list(unbroken.search.focus)
    assert len(resumed.corpus) == len(unbroken.corpus)
    assert encode(resumed.search.state()) == encode(unbroken.search.state())


@pytest.mark.parametrize("name", NAMES)
def test_stopping_after_every_turn_changes_nothing(name):
    unbroken, broken = Run(name), Run(name)
    for _ in range(25):
        assert rows_of(broken.turn()) == rows_of(unbroken.turn())
        broken = broken.spec_for_resume()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("margin", [np.nan, -np.inf, -1e30, 0, 1, np.inf])
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("seeds", [1, 7])
def test_any_margins_and_novelty_can_be_told(name, margin, new, seeds):
    run = Run(name, seeds)
    for _ in range(12):
        batch = run.search.ask(8)
        assert SPACE.legal(batch).all()
        margins = np.full((len(batch), 3), margin, np.float32)
        run.search.tell(batch, {}, margins, np.full(len(batch), new))
    run = run.spec_for_resume()
    assert_sound(run, run.turn(8), 8, seeds)


@pytest.mark.parametrize("name", NAMES)
def test_it_works_with_one_operator_and_without_a_sampler(name):
    run = Run(name, operators=("substitute",), sampler=False)
    run.turn()
    for batch in run.turns(8):
        assert (batch.operator == 0).all()
        assert SPACE.legal(batch).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_was_asked_and_what_is_told_stays_as_it_was(name):
    """Batches are kept by others; a search may neither change them later nor need to write into its own."""
    run, kept = Run(name), []
    for _ in range(20):
        batch = run.search.ask(16)
        margins, novel = graded(batch, run.search.focus), batch.lengths % 2 == 0
        before = rows_of(batch), margins.copy(), novel.copy()
        run.search.tell(batch, {}, margins, novel)
        kept.append((batch, before[0]))
        np.testing.assert_array_equal(margins, before[1])
        np.testing.assert_array_equal(novel, before[2])
    for batch, rows in kept:
        assert rows_of(batch) == rows


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.partition(":")[0] in ("tensorfuzz", "directed")]
)
def test_guided_searches_keep_rows_whose_state_is_new_and_breed_from_them(name):
    run = Run(name)
    run.turn(novel=np.ones(7, bool))
    assert len(run.corpus) == 7, "seeds are kept once"
    for _ in range(30):
        size, batch = len(run.corpus), run.turn(novel=np.arange(16) % 8 == 0)
        kept = rows_of(run.corpus[slice(size, None)])
        asked = rows_of(batch)
        assert asked[0] in kept
        assert asked[8] in kept
    later = np.concatenate([batch.parent for batch in run.turns(20)])
    assert (later >= 7).any(), "rows that were found are parents"
    assert all(lineage(run.corpus[:].parent, int(parent))[0] < 7 for parent in later)


@pytest.mark.parametrize("name", ["random", "walk"])
def test_baselines_learn_nothing(name):
    one, other = Run(name), Run(name)
    for _ in range(10):
        first = one.turn(novel=np.zeros(16, bool))
        second = other.turn(margins=np.ones((16, 3), np.float32), novel=np.ones(16, bool))
        assert rows_of(first) == rows_of(second)
    assert len(one.corpus) == len(other.corpus) == 7


def test_random_mutates_seeds_alone_and_a_walk_goes_on_from_its_last_step():
    random, walk = Run("random", operators=("insert",)), Run("walk", operators=("insert",))
    random.turn()
    walk.turn()
    for steps in range(1, 6):
        for run, grown in ((random, 1), (walk, steps)):
            batch = run.turn()
            assert (batch.parent < 7).all()
            before = run.corpus[batch.parent].lengths
            room = before + grown <= SPACE.max_length
            assert room.any()
            np.testing.assert_array_equal(batch.lengths[room], before[room] + grown)


@pytest.mark.parametrize("sampler", ["recent", "uniform"])
def test_tensorfuzz_makes_each_batch_from_one_parent(sampler):
    run = Run(f"tensorfuzz:sampler={sampler}")
    run.turn()
    parents = []
    for _ in range(200):
        size, batch = len(run.corpus), run.turn(novel=np.arange(16) == 0)
        assert len(set(batch.parent.tolist())) == 1
        parents.append(size - 1 - int(batch.parent[0]))  # 0: the row added last
    recent = np.mean(np.array(parents) < 5)
    assert (recent > 0.7) == (sampler == "recent"), "five of six draws are among the last five rows"
    assert max(parents) > 20, "any row may be drawn"


# --- searches for each seed by itself, which judge two classifiers ---


def maker(name):
    return lambda context: SEARCHES.build(parse(name), context)


@pytest.mark.parametrize("name", PER_SEED)
def test_it_knows_what_became_of_every_seed_and_ends(name):
    run = duel.Run.of(maker(name), seeds=6, queries=40)
    assert isinstance(run.search, TracksSeeds)
    assert run.search.traits.needs <= run.duel.run(run.context.seeds).keys()
    rows = run.to_the_end()
    outcomes = run.search.outcomes
    assert rows == len(run.context.seeds) + outcomes.queries.sum()
    assert (outcomes.solved | outcomes.natural | (outcomes.queries == 40)).all()


@pytest.mark.parametrize("name", PER_SEED)
@pytest.mark.parametrize("before", [0, 1, 2, 7])
def test_one_per_seed_that_was_stopped_goes_on_as_if_it_had_not_been(name, before):
    duel.same_when_resumed(maker(name), before, seeds=6, queries=90)


@pytest.mark.parametrize("name", PER_SEED)
def test_one_per_seed_is_the_same_with_the_same_seed(name):
    runs = [duel.Run.of(maker(name), seeds=6, queries=60, rng=rng) for rng in (3, 3)]
    one, same = ([duel.rows_of(run.turn(32)) for _ in range(9)] for run in runs)
    assert one == same


# --- what searches say of themselves ---


@pytest.mark.parametrize("name", SEARCHES.names())
def test_every_search_says_what_it_is(name):
    made = SEARCHES.find(name)
    assert isinstance(made.traits, SearchTraits)
    assert traits_of(made) is made.traits
    assert made.traits.each >= 1


def test_searches_written_for_0_3_0_are_understood():
    class Old:
        needs, each, trials = frozenset({"base/logits"}), 5, "what became of the seeds"

    assert traits_of(Old) == traits_of(Old()) == SearchTraits(frozenset({"base/logits"}), each=5)
    assert outcomes_of(Old()) == "what became of the seeds"
    assert traits_of(object()) == SearchTraits()
    assert outcomes_of(object()) is None
