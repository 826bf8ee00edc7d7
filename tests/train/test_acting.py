"""C in real environments: epsilon, what it is told, and test episodes that are all played to their end."""

import numpy as np
import pytest
import torch

from remctl.config import resolve
from remctl.envs.atari import Atari
from remctl.interfaces import EnvStep
from remctl.train import evaluate
from remctl.train.acting import Policy
from remctl.train.build import Agent, build_agent
from remctl.train.collector import Collector
from remctl.train.seeding import Randomness
from tests.envs.test_atari import EndingGame
from tests.tiny import TINY


def make_agent(*sets: str) -> Agent:
    return build_agent(resolve("Catch", "quick", sets=(*TINY, *sets)), 3, torch.device("cpu"))


class Counting:
    """Episode e of a game lasts `lengths[e]` steps, reward e each step; frames show (episode, step)."""

    num_actions, action_names, is_new_game = 3, ("a", "b", "c"), False

    def __init__(self, lengths: list[int], lives: int = 1, truncate: bool = False) -> None:
        self.lengths, self.lives, self.truncate = lengths, lives, truncate
        self.episode, self.at, self.actions = -1, 0, []

    def _frame(self) -> np.ndarray:
        return np.full((32, 32, 3), (self.episode * 16 + self.at) % 256, np.uint8)

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.episode, self.at = self.episode + 1, 0
        return self._frame()

    def step(self, action: int) -> EnvStep:
        self.actions.append(action)
        self.at += 1
        over = self.at >= self.lengths[self.episode % len(self.lengths)]
        game_over = over and (self.episode + 1) % self.lives == 0
        return EnvStep(
            self._frame(), float(self.episode), over and not self.truncate, over and self.truncate, game_over
        )

    def get_state(self) -> dict:
        return {}

    def set_state(self, state: dict) -> None: ...

    def close(self) -> None: ...


def no_track(steps, name, total):
    return steps


def acting(num_envs: int) -> list[np.random.Generator]:
    return [np.random.default_rng(i) for i in range(num_envs)]


def test_collection_never_stores_the_frame_after_an_end_and_marks_firsts() -> None:
    steps, games = Collector(Counting([3, 2], lives=2)).collect(
        10, Policy(make_agent(), False, 1.0), Randomness(0, 1, "x"), no_track
    )
    assert steps.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 16, 17, 32, 33, 34, 48, 49]
    assert steps.first.tolist() == [i in (0, 3, 5, 8) for i in range(10)]
    assert steps.ends.tolist() == [i in (2, 4, 7, 9) for i in range(10)]
    assert [(g["return"], g["length_steps"]) for g in games] == [(2.0, 5), (12.0, 5)]


def test_a_time_limit_is_stored_as_not_ended_and_closes_the_episode() -> None:
    steps, games = Collector(Counting([3], truncate=True)).collect(
        7, Policy(make_agent(), False, 1.0), Randomness(0, 1, "x"), no_track
    )
    assert not steps.ends.any()
    assert steps.first.tolist() == [True, False, False, True, False, False, True]
    assert len(games) == 2


def test_rewards_are_stored_as_they_are() -> None:
    steps, _ = Collector(Counting([2])).collect(8, Policy(make_agent(), False, 1.0), Randomness(0, 1, "x"), no_track)
    assert steps.rewards.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_an_episode_goes_on_in_the_next_epoch() -> None:
    policy, pieces = Policy(make_agent(), True, 1.0), Collector(Counting([50]))
    first, _ = pieces.collect(4, policy, Randomness(0, 1, "x"), no_track)
    second, _ = pieces.collect(4, policy, Randomness(0, 2, "x"), no_track)
    assert first.first.tolist() == [True, False, False, False]
    assert not second.first.any()
    assert second.frames[0, 0, 0, 0] == 4


@pytest.mark.parametrize("is_end", [False, True])
def test_a_time_limit_in_collection_is_stored_as_an_end_as_published_or_as_none(is_end: bool) -> None:
    collector = Collector(Counting([3], truncate=True), time_limit_ends=is_end)
    steps, _ = collector.collect(6, Policy(make_agent(), False, 1.0), Randomness(0, 1, "x"), no_track)
    assert steps.ends.tolist() == [False, False, is_end] * 2
    assert steps.first.tolist() == [True, False, False] * 2


def test_c_is_reminded_of_the_stored_frames_alone_of_an_episode_that_runs() -> None:
    agent = make_agent()
    policy, collector = Policy(agent, True, 1.0), Collector(Counting([50]))
    steps, _ = collector.collect(5, policy, Randomness(0, 1, "x"), no_track)
    carried = collector.controller_state
    collector.remind(policy, steps.frames[-3:])
    state = policy.initial_state(1)
    with torch.no_grad():
        for frame in steps.frames[-3:]:
            state, _ = agent.controller.observe(state, agent.view(agent.encode(torch.from_numpy(frame[None]))))
    torch.testing.assert_close(collector.controller_state.h, state.h, rtol=0, atol=1e-6)
    assert not torch.allclose(carried.h, state.h)
    between = Collector(Counting([5]))
    between.collect(5, policy, Randomness(0, 1, "x"), no_track)
    before = between.controller_state
    between.remind(policy, steps.frames)  # a reset is due
    assert between.controller_state is before


@pytest.mark.parametrize("told", ["own", "executed"])
def test_epsilon_executes_uniform_actions_and_c_is_told_what_is_configured(told: str, monkeypatch) -> None:
    agent, heard = make_agent(), []
    record = agent.controller.record_action
    monkeypatch.setattr(agent.controller, "record_action", lambda s, a: heard.append(a.clone()) or record(s, a))
    own = torch.tensor([0] * 500)
    monkeypatch.setattr("remctl.train.acting.categorical_at", lambda *_: own)
    policy = Policy(agent, True, 1.0, epsilon=0.3, executed_action_to_controller=told == "executed")
    frames = np.zeros((500, 32, 32, 3), np.uint8)
    _, executed = policy.act(policy.initial_state(500), frames, acting(500))
    assert (executed != 0).mean() == pytest.approx(0.3 * 2 / 3, abs=0.07)
    assert torch.equal(heard[0], own if told == "own" else torch.from_numpy(executed))


def test_acting_gives_back_the_state_that_was_told() -> None:
    agent = make_agent()
    policy = Policy(agent, True, 1.0)
    frames = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
    fresh = policy.initial_state(2)
    state, actions = policy.act(fresh, frames, acting(2))
    with torch.no_grad():
        seen, _ = agent.controller.observe(fresh, agent.view(agent.encode(torch.from_numpy(frames))))
        told = agent.controller.record_action(seen, torch.from_numpy(actions))
    assert torch.equal(state.h, told.h)
    assert torch.equal(state.c, told.c)
    assert not torch.equal(state.h, seen.h)


def test_a_c_that_observes_frames_is_shown_what_v_decodes() -> None:
    agent = make_agent("controller.observes=frames")
    tokens = torch.randint(16, (2, 3, agent.tokenizer.tokens_per_obs))
    seen = agent.view(tokens)
    assert seen.shape == (2, 3, 3, 32, 32)
    for b in range(2):
        for f in range(3):
            with torch.no_grad():
                frame = agent.tokenizer.decode(agent.tokenizer.embed(tokens[b, f][None]))[0].clamp(-1, 1)
            torch.testing.assert_close(seen[b, f], frame, rtol=0, atol=1e-5)
    assert seen.std() > 0


def test_before_c_is_trained_actions_are_uniform_whatever_it_would_do() -> None:
    policy = Policy(make_agent(), False, 0.01)
    _, actions = policy.act(policy.initial_state(3000), np.zeros((3000, 32, 32, 3), np.uint8), acting(3000))
    assert np.bincount(actions, minlength=3).min() > 900


@pytest.mark.parametrize(("episodes", "num_envs"), [(1, 1), (5, 2), (7, 3), (3, 8)])
def test_every_episode_is_counted_once_and_played_to_its_end(episodes: int, num_envs: int, monkeypatch) -> None:
    made: list[Counting] = []

    def make(*args: object, **kwargs: object) -> Counting:
        assert kwargs["training"] is False
        made.append(Counting([2 + 3 * len(made), 1 + len(made)]))
        return made[-1]

    monkeypatch.setattr(evaluate, "make_env", make)
    seen: list[int] = []
    played = evaluate.play(
        make_agent(f"evaluation.num_envs={num_envs}"),
        episodes,
        Randomness(0, 1, "x"),
        seen.append,
        True,
        num_kept=episodes,
    )
    assert [e.index for e in played] == list(range(episodes))
    assert len(made) == min(num_envs, episodes)
    assert sum(e.num_steps for e in played) == sum(len(env.actions) for env in made)
    assert seen[-1] == episodes
    steps = evaluate.as_steps(played)
    assert steps.first.sum() == episodes
    assert steps.ends.sum() == episodes
    for episode in played:
        kept = episode.steps()
        assert len(kept) == episode.num_steps
        assert all(f[0, 0, 0] % 16 == i for i, f in enumerate(kept.frames))


class Drawn(Counting):
    """Each reward is what the episode's reset drew."""

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.reward = float(rng.integers(2, 10**6))
        return super().reset(rng)

    def step(self, action: int) -> EnvStep:
        return super().step(action)._replace(reward=self.reward)


def test_every_test_episode_has_its_own_reset_and_its_whole_unclipped_return(monkeypatch) -> None:
    monkeypatch.setattr(evaluate, "make_env", lambda *a, **k: Drawn([3]))
    random = Randomness(0, 1, "x")
    played = evaluate.play(make_agent("evaluation.num_envs=2"), 5, random, lambda n: None, True)
    returns = [3.0 * random.numpy("reset", i).integers(2, 10**6) for i in range(5)]
    assert [e.total_return for e in played] == returns
    assert len(set(returns)) == 5


def test_test_episodes_depend_on_the_seed_alone() -> None:
    agent = make_agent()
    runs = [evaluate.play(agent, 6, Randomness(s, 1, "x"), lambda n: None, True, num_kept=6) for s in (0, 0, 1)]
    actions = [[e.steps().actions.tolist() for e in played] for played in runs]
    assert actions[0] == actions[1] != actions[2]


class Recording:
    """Stands in for C's memory: which states were observed, by object."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[torch.Tensor] = []
        observe = agent.controller.observe

        def wrapped(state, observation):
            self.seen.append(state.h.clone())
            return observe(state, observation)

        monkeypatch.setattr(agent.controller, "observe", wrapped)


@pytest.mark.parametrize("is_late", [False, True], ids=["game over", "time limit"])
def test_a_game_that_ends_in_the_noop_after_a_lost_life_has_a_record_of_its_own(
    is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent()
    env = Atari("Breakout", frame_size=agent.config.environment.frame_size, noops=(1, 1), dead_starts=False)
    collector = Collector(env)
    fire = torch.tensor([env.action_names.index("FIRE")])
    monkeypatch.setattr("remctl.train.acting.categorical_at", lambda *_: fire)

    def collect(num_steps: int) -> list[tuple[object, object]]:
        policy, random = Policy(agent, True, 1.0), Randomness(0, 1, "x")
        _, games = collector.collect(num_steps, policy, random, lambda steps, *_: steps)
        return [(game["return"], game["length_steps"]) for game in games]

    first = 0
    while collector.frame is not None or not first:  # until a life is lost
        assert collect(1) == []
        first += 1
    collector.game_return = 7.0
    if is_late:
        monkeypatch.setattr(env, "_time_limit_frames", len(env._played) + 2)
    else:
        monkeypatch.setattr(env, "_ale", EndingGame(env._ale, num_frames=2))
    assert collect(1) == [(7.0, first)]
    assert (collector.game_steps, collector.frame is None) == (1, False)


def test_c_forgets_at_an_episodes_end_in_collection_and_in_tests(monkeypatch) -> None:
    agent = make_agent("evaluation.num_envs=2")
    memory = Recording(agent, monkeypatch)
    Collector(Counting([3, 2])).collect(8, Policy(agent, True, 1.0), Randomness(0, 1, "x"), no_track)
    assert [bool((h == 0).all()) for h in memory.seen] == [i in (0, 3, 5) for i in range(8)]
    memory.seen.clear()
    envs = iter([Counting([2, 2, 2]), Counting([5])])
    monkeypatch.setattr(evaluate, "make_env", lambda *a, **k: next(envs))
    evaluate.play(agent, 3, Randomness(0, 1, "x"), lambda n: None, True)
    fresh = [[bool((row == 0).all()) for row in h] for h in memory.seen]
    assert fresh == [[True, True], [False, False], [True, False], [False, False], [False]]


def test_temperature_is_the_tests_in_tests_and_the_collections_in_collection(monkeypatch) -> None:
    agent, heard = make_agent("evaluation.temperature=0.25"), []

    def sample(logits: torch.Tensor, u: object, temperature: float) -> torch.Tensor:
        heard.append(temperature)
        return torch.zeros(len(logits), dtype=torch.int64)

    monkeypatch.setattr("remctl.train.acting.categorical_at", sample)
    evaluate.play(agent, 2, Randomness(0, 1, "x"), lambda n: None, True)
    assert set(heard) == {0.25}
    heard.clear()
    Collector(Counting([9])).collect(3, Policy(agent, True, 0.01), Randomness(0, 1, "x"), no_track)
    assert heard == [0.01] * 3


def test_an_untrained_c_does_not_act_in_tests(monkeypatch) -> None:
    agent = make_agent()
    monkeypatch.setattr(agent.controller, "observe", lambda *_: pytest.fail("C acted"))
    evaluate.play(agent, 2, Randomness(0, 1, "x"), lambda n: None, False)


class Endless(Counting):
    """One episode that is cut after `length` steps, its frames unlike those of others."""

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.lengths = [int(rng.integers(2, 12))]
        return super().reset(rng)


def test_what_an_episode_plays_does_not_depend_on_how_many_others_are_played_or_how_long_they_take(monkeypatch) -> None:
    monkeypatch.setattr(evaluate, "make_env", lambda *a, **k: Endless([0]))
    plays = []
    for count, num_envs in ((6, 3), (6, 1), (4, 4)):
        agent = make_agent(f"evaluation.num_envs={num_envs}")
        played = evaluate.play(agent, count, Randomness(0, 1, "x"), lambda n: None, True, num_kept=count)
        plays.append([e.steps().actions.tolist() for e in played])
    assert plays[0] == plays[1]
    assert plays[0][:4] == plays[2]
    assert len({tuple(actions) for actions in plays[0]}) == 6


@pytest.mark.parametrize("other", ["resets more often", "epsilon 1"])
def test_in_collection_resets_and_acting_do_not_shift_each_other(other: str) -> None:
    """An environment that ends earlier draws more resets, an epsilon of 1 uses other numbers: the rest stays."""
    drawn, taken = [], []

    class Drawing(Counting):
        def reset(self, rng: np.random.Generator) -> np.ndarray:
            drawn[-1].append(int(rng.integers(10**9)))
            return super().reset(rng)

    agent = make_agent()
    for lengths, epsilon in (([5], 0.0), ([2], 0.0) if other == "resets more often" else ([5], 1.0)):
        drawn.append([])
        policy = Policy(agent, other == "epsilon 1", 1.0, epsilon)
        steps, _ = Collector(Drawing(lengths)).collect(20, policy, Randomness(0, 1, "collect"), no_track)
        taken.append(steps.actions.tolist())
    few, more = drawn
    assert more[: len(few)] == few
    if other == "resets more often":
        assert len(few) < len(more)
        assert taken[0] == taken[1]
    else:
        assert taken[0] != taken[1]


def test_only_the_environment_is_unseeded() -> None:
    resets, actions = [], []

    class Drawing(Counting):
        def reset(self, rng: np.random.Generator) -> np.ndarray:
            resets.append(int(rng.integers(10**9)))
            return super().reset(rng)

    for _ in range(2):
        policy = Policy(make_agent(), False, 1.0)
        steps, _ = Collector(Drawing([50])).collect(20, policy, Randomness(0, 1, "collect"), no_track, seeded=False)
        actions.append(steps.actions.tolist())
    assert actions[0] == actions[1]
    assert resets[0] != resets[1]
