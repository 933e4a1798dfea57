"""Who is kept and what each turn or token is credited with, in loops, from the papers' equations."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Hashable
from difflib import SequenceMatcher
from typing import TypeAlias

import numpy as np

from tests.parity.plain_world import Traj, Turn, World, deviation, grouped, mean, median

Base: TypeAlias = set[Traj]
ByTurn: TypeAlias = dict[Turn, float]
Credit: TypeAlias = Callable[[World, Base], ByTurn]
Key: TypeAlias = Callable[[Turn], Hashable]


# -- keep: which turns carry loss, which trajectories count ------------------------------------------------


def everything(world: World) -> tuple[set[Turn], Base]:
    return set(world.turns), set(world.trajs)


def whole(trajs: list[Traj]) -> tuple[set[Turn], Base]:
    return {turn for traj in trajs for turn in traj.turns}, set(trajs)


def mixed(world: World) -> tuple[set[Turn], Base]:
    groups = [g for g in world.groups() if max(t.total for t in g) - min(t.total for t in g) > 1e-6]
    return whole([traj for group in groups for traj in group])


def simple_tir(world: World) -> tuple[set[Turn], Base]:
    def void(turn: Turn) -> bool:
        return (
            not re.search(r"```(?:py|python)?\n(.*?)\n```", turn.text, re.DOTALL)
            and "\\boxed{" not in turn.text
        )

    turns, base = mixed(world)
    return {turn for turn in turns if not any(void(other) for other in turn.traj.turns)}, base


def resample_on_correct(world: World) -> tuple[set[Turn], Base]:
    def wait(traj: Traj) -> float:
        noise = np.random.default_rng([0, zlib.crc32(traj.task.encode()), traj.member, 0]).random()
        weight = 1.0
        if traj.won:
            calls = sum(turn.calls for turn in traj.turns)
            errors = sum(turn.errors for turn in traj.turns)
            refused = sum(not turn.valid for turn in traj.turns) / len(traj.turns)
            weight = 1 / ((errors / calls if calls else 0.0) + refused + 0.1)
        return -math.log(noise) / weight

    kept = []
    for group in world.groups():
        good = sorted((traj for traj in group if traj.won), key=wait)
        bad = sorted((traj for traj in group if not traj.won), key=wait)
        wanted = math.ceil(len(group) / 2)
        from_good = max(min(math.ceil(len(good) / 2), wanted), wanted - len(bad))
        kept += good[:from_good] + bad[: wanted - from_good]
    return whole(kept)


def most_spread(world: World) -> tuple[set[Turn], Base]:
    kept = []
    for group in world.groups():
        ranked = sorted(group, key=lambda traj: (traj.total, traj.member))
        size = max(math.ceil(len(group) / 2), min(2, len(group)))
        best: list[Traj] = []
        largest = -1.0
        for low in range(size):
            chosen = ranked[:low] + ranked[len(ranked) - size + low :]
            spread = round(deviation((traj.total for traj in chosen), 0) ** 2, 9)
            if spread > largest:
                best, largest = chosen, spread
        kept += best
    return whole(kept)


def neither_hard_nor_easy(world: World) -> tuple[set[Turn], Base]:
    turns, base = mixed(world)
    fair = {g[0].group for g in world.groups() if 0.2 <= mean(traj.won for traj in g) <= 0.8}
    return {t for t in turns if t.traj.group in fair}, {t for t in base if t.group in fair}


def own_turns(world: World) -> tuple[set[Turn], Base]:
    return {t for t in world.turns if t.traj.parent is None or t.index >= t.traj.branch}, set(world.trajs)


# -- rewards -----------------------------------------------------------------------------------------------


def environment(world: World) -> None:
    for turn in world.turns:
        turn.reward = turn.environment_reward


def ada_grpo(world: World) -> None:
    def manner(traj: Traj) -> tuple[bool, bool]:
        return any(token.plan for token in traj.tokens), any(turn.calls for turn in traj.turns)

    for group in world.groups():
        for traj in group:
            same = sum(manner(other) == manner(traj) for other in group)
            progress = 0.5  # of training, as everywhere in this test
            alpha = (
                len(group)
                / same
                * (same / len(group) + (1 - same / len(group)) * (1 + math.cos(math.pi * progress)) / 2)
            )
            for turn in traj.turns:
                turn.reward = alpha * turn.environment_reward


def otc(world: World) -> None:
    for traj in world.trajs:
        group = [other for other in world.trajs if other.group == traj.group and other.won]
        calls = {other: sum(turn.calls for turn in other.turns) for other in [*group, traj]}
        m, factor = calls[traj], 0.0
        if traj.won:
            n = min(calls[other] for other in group)
            if not math.isnan(traj.least_calls):
                n = min(n, int(traj.least_calls))
            if n == 0:
                factor = math.cos(m * math.pi / (2 * m + 8))
            else:
                factor = math.sin(2 * m * n / (m + n) * math.pi / (2 * n))
        for turn in traj.turns:
            turn.reward = factor * turn.environment_reward


def ufo(world: World) -> None:
    for traj in world.trajs:
        for turn in traj.turns:
            turn.reward = 0.5**turn.index * turn.environment_reward
        distinct = len({turn.action for turn in traj.turns})
        traj.turns[-1].reward -= 0.1 * (1 - distinct / len(traj.turns))


def unlikeliness(world: World) -> None:
    for group in world.groups():
        likelihood = {traj: sum(token.old for token in traj.tokens) for traj in group}
        for traj in group:
            rank = 1 + sum(likelihood[other] > likelihood[traj] for other in group)
            for turn in traj.turns:
                turn.reward = turn.environment_reward * (1 - 0.25 * (len(group) - rank) / len(group))


def grpo_lambda(world: World) -> None:
    environment(world)
    rates = {group[0].group: mean(traj.won for traj in group) for group in world.groups()}
    least = sorted(rates.values(), reverse=True)[max(1, round(0.2 * len(rates))) - 1]
    for group in world.groups():
        good = [traj for traj in group if traj.won]
        if rates[group[0].group] < least or not good:
            continue
        lengths = [len(traj.tokens) for traj in good]
        for traj in good:
            away = (len(traj.tokens) - mean(lengths)) / (deviation(lengths, 0) + 1e-6)
            for turn in traj.turns:
                turn.reward *= 1 - 0.2 / (1 + math.exp(-away))


def fapo(world: World) -> None:
    for turn in world.turns:
        turn.reward = turn.environment_reward - turn.flawed


# -- group-relative credit ---------------------------------------------------------------------------------


def relative(
    world: World, base: Base, figure: Callable[[Turn], float], peers: Key, *, std: str = "n-1",
    center: str = "mean", per_turn: bool = False, raw: bool = False,
) -> ByTurn:  # fmt: skip
    """Compare each turn with its peers; a trajectory counts once unless `per_turn`; None has no peers."""
    result = {}
    pools: dict[Hashable, list[float]] = {}
    for key, turns in grouped(world.turns, peers).items():
        if key is None:
            continue
        inside = [turn for turn in turns if turn.traj in base]
        if not per_turn:
            inside = [same[0] for same in grouped(inside, lambda turn: turn.traj).values()]
        pools[key] = [figure(turn) for turn in inside]
    everybody = [other for each in pools.values() for other in each]
    for turn in world.turns:
        pool, value = pools.get(peers(turn), []), figure(turn)
        if len(pool) <= 1:
            result[turn] = value if raw else 0.0
            continue
        if center == "others" and turn.traj in base:
            rest = list(pool)
            rest.remove(value)
            result[turn] = value - mean(rest)
            continue
        minus = CENTERS[center](pool)
        result[turn] = (value - minus) / SCALES[std](everybody if std == "batch" else pool, minus)
    return result


CENTERS: dict[str, Callable[[list[float]], float]] = {
    "mean": mean,
    "others": mean,
    "median": median,
    "nothing": lambda pool: 0.0,
}

SCALES: dict[str, Callable[[list[float], float], float]] = {
    "none": lambda pool, minus: 1.0,
    "n-1": lambda pool, minus: deviation(pool) + 1e-6,
    "batch": lambda pool, minus: deviation(pool) + 1e-6,
    "median": lambda pool, minus: max(median(abs(x - minus) for x in pool), 0.25) + 1e-6,
    "absolute": lambda pool, minus: mean(abs(x - minus) for x in pool) + 1e-6,
    "mean": lambda pool, minus: mean(pool) if mean(pool) > 0 else math.inf,
}


def total(turn: Turn) -> float:
    return turn.traj.total


def future(gamma: float) -> Callable[[Turn], float]:
    def value(turn: Turn) -> float:
        later = turn.traj.turns[turn.index :]
        return sum(gamma**place * other.reward for place, other in enumerate(later))

    return value


def penalised(figure: Callable[[Turn], float]) -> Callable[[Turn], float]:
    return lambda turn: figure(turn) - (0.0 if turn.valid else 0.1)


def task(turn: Turn) -> Hashable:
    return turn.traj.group


def all_turns(_: Turn) -> Hashable:
    return "all"


def anchor(turn: Turn) -> Hashable:
    return None if turn.key < 0 else (turn.traj.group, turn.key)


def state(turn: Turn) -> Hashable:
    return None if turn.state < 0 else (turn.traj.group, turn.state)


def plus(*parts: ByTurn) -> ByTurn:
    return {turn: sum(part[turn] for part in parts) for turn in parts[0]}


def grpo(world: World, base: Base) -> ByTurn:
    return relative(world, base, total, task)


def centered_by_group(world: World, base: Base) -> ByTurn:
    return relative(world, base, total, task, std="none")


def gigpo(keys: Key, value: Callable[[Turn], float] | None = None) -> Credit:
    def credit(world: World, base: Base) -> ByTurn:
        step = relative(world, base, value or future(0.95), keys, std="none", per_turn=True)
        return plus(centered_by_group(world, base), step)

    return credit


def gigpo_verl_agent(world: World, base: Base) -> ByTurn:
    return plus(
        relative(world, base, penalised(total), task, per_turn=True, raw=True),
        relative(world, base, penalised(future(0.95)), anchor, per_turn=True),
    )


def gigpo_similar(world: World, base: Base) -> ByTurn:
    place: dict[Turn, Hashable] = {}
    for group in world.groups():
        firsts: list[str] = []
        for turn in (turn for traj in group for turn in traj.turns):
            alike = [i for i, text in enumerate(firsts)
                     if SequenceMatcher(None, turn.observation, text).ratio() >= 0.9]  # fmt: skip
            place[turn] = (turn.traj.group, alike[0] if alike else len(firsts))
            firsts += [] if alike else [turn.observation]
    return gigpo(lambda turn: place[turn])(world, base)


def hgpo(world: World, base: Base) -> ByTurn:
    value, top, under = (
        penalised(future(0.95)),
        dict.fromkeys(world.turns, 0.0),
        dict.fromkeys(world.turns, 0.0),
    )
    for depth in (1, 2, 3):

        def recent(turn: Turn, depth: int = depth) -> Hashable:
            if turn.index < depth - 1:
                return None
            keys = [other.key for other in turn.traj.turns[turn.index - depth + 1 : turn.index + 1]]
            return None if min(keys) < 0 else (turn.traj.group, *keys)

        for key, turns in grouped(world.turns, recent).items():
            if key is None or len(turns) < 2:
                continue
            values = [value(turn) for turn in turns]
            for turn in turns:
                away = (value(turn) - mean(values)) / (deviation(values, 0) + 1e-6)
                if abs(away) >= 1e-6:
                    top[turn] += (depth + 1) * away
                    under[turn] += depth + 1
    return {turn: top[turn] / (under[turn] + 1e-6) for turn in world.turns}


def igpo(*, joint: bool) -> Credit:
    def credit(world: World, base: Base) -> ByTurn:
        result = {}
        for group in world.groups():
            gains = {
                turn: after.belief - turn.belief
                for traj in group
                for turn, after in zip(traj.turns, traj.turns[1:], strict=False)
            }
            outcomes = [traj.total for traj in group]
            pool = [*gains.values(), *outcomes]
            for traj in group:
                later = 0.0
                for turn in reversed(traj.turns):
                    if turn.index == len(traj.turns) - 1:
                        here, among = traj.total, pool if joint else outcomes
                    else:
                        here, among = gains[turn], pool if joint else list(gains.values())
                    spread = math.sqrt(deviation(among, 0) ** 2 + 1e-8) + 1e-6
                    later += (here - mean(among)) / spread if len(among) > 1 else 0.0
                    result[turn] = later
        return result

    return credit


def mt_grpo(world: World, base: Base) -> ByTurn:
    def early(turn: Turn) -> float:
        return turn.reward if turn is not turn.traj.turns[-1] else 0.0

    def last(turn: Turn) -> float:
        return turn.traj.turns[-1].reward

    def both(turn: Turn) -> float:
        return last(turn) + early(turn.traj.turns[0])

    outcome, whole = relative(world, base, last, task), relative(world, base, both, task)
    step = relative(world, base, early, lambda turn: (turn.traj.group, turn.index))
    return {
        turn: whole[turn] if len(turn.traj.turns) == 1 else outcome[turn] + (turn.index == 0) * step[turn]
        for turn in world.turns
    }


def tempo(world: World, base: Base) -> ByTurn:
    def past(turn: Turn) -> Hashable:
        keys = [other.key for other in turn.traj.turns[: turn.index + 1]]
        return (turn, "alone") if min(keys) < 0 else (turn.traj.group, *keys)

    return plus(centered_by_group(world, base), value_differences(world, past))


def value_differences(world: World, place: Key) -> ByTurn:
    value = {
        key: mean(same[0].traj.total for same in grouped(turns, lambda turn: turn.traj).values())
        for key, turns in grouped(world.turns, place).items()
    }
    result = {}
    for turn in world.turns:
        last = turn.index == len(turn.traj.turns) - 1
        after = turn.traj.total if last else value[place(turn.traj.turns[turn.index + 1])]
        result[turn] = after - value[place(turn)]
    return result


def origin(turn: Turn) -> Turn:
    """The turn of an ancestor that this one is a copy of."""
    parent = turn.traj.parent
    shared = parent is not None and turn.index < min(turn.traj.branch, len(parent.turns))
    return origin(parent.turns[turn.index]) if parent is not None and shared else turn


def node(turn: Turn) -> Hashable:
    """The place in a branched tree where a turn begins."""
    return ("root", turn.traj.group) if turn.index == 0 else origin(turn.traj.turns[turn.index - 1])


def root(traj: Traj) -> Traj:
    return traj if traj.parent is None else root(traj.parent)


def averaged(credit: ByTurn, among: Key) -> ByTurn:
    result = {}
    for key, turns in grouped(credit, among).items():
        middle = mean(credit[turn] for turn in turns)
        result.update({turn: credit[turn] if key is None else middle for turn in turns})
    return result


def salt(world: World, base: Base) -> ByTurn:
    def step(turn: Turn) -> Hashable:
        last = turn.index == len(turn.traj.turns) - 1
        after = turn.traj.last_key if last else turn.traj.turns[turn.index + 1].key
        return None if turn.key < 0 or after < 0 else (turn.traj.group, turn.key, turn.action, after)

    return averaged(grpo(world, base), step)


def arpo_hard(world: World, base: Base) -> ByTurn:
    return averaged(grpo(world, base), origin)


def tree_grpo(world: World, base: Base) -> ByTurn:
    return plus(grpo(world, base), relative(world, base, total, lambda turn: root(turn.traj)))


def tree_po(world: World, base: Base) -> ByTurn:
    nodes = {key: {turn.traj for turn in turns} for key, turns in grouped(world.turns, node).items()}
    result = {}
    for traj in world.trajs:
        members = [other for other in world.trajs if other.group == traj.group]
        subtrees = [set(members)]
        for turn in traj.turns:
            inside = nodes[node(turn)]
            if len(inside) > 1 and not (turn.index == 0 and len(inside) == len(members)):
                subtrees.append(inside)
        top = sum(len(t) * (traj.total - mean(other.total for other in t)) for t in subtrees)
        for turn in traj.turns:
            result[turn] = top / sum(len(t) for t in subtrees)
    return whitened(result)


def whitened(credit: ByTurn) -> ByTurn:
    values = list(credit.values())
    return {turn: (value - mean(values)) / (deviation(values) + 1e-6) for turn, value in credit.items()}


def ngrpo(world: World, base: Base) -> ByTurn:
    result = {}
    for group in world.groups():
        pool = [*(traj.total for traj in group), 1.0]
        for turn in (turn for traj in group for turn in traj.turns):
            lone = len(group) == 1
            result[turn] = 0.0 if lone else (turn.traj.total - mean(pool)) / (deviation(pool) + 1e-6)
    return result


def beta_norm(world: World, base: Base) -> ByTurn:
    rates = [mean(traj.total for traj in group) for group in world.groups()]
    middle, spread = mean(rates), deviation(rates, 0) ** 2
    alpha = beta = 1.0
    if spread >= 1e-12:
        both = middle * (1 - middle) / spread - 1
        alpha, beta = max(1.0, 1 + middle * both / 3), max(1.0, 1 + (1 - middle) * both / 3)
    result = {}
    for group in world.groups():
        p = mean(traj.total for traj in group)
        front = math.gamma(alpha + beta) / math.gamma(alpha) / math.gamma(beta)
        density = max(front * p ** (alpha - 1) * (1 - p) ** (beta - 1), 1e-6)
        for turn in (turn for traj in group for turn in traj.turns):
            result[turn] = (turn.traj.total - p) / density
    return result


def dgpo_difficulty(world: World, base: Base) -> ByTurn:
    own = relative(world, base, total, task, std="absolute")
    raw = {group[0].group: math.exp(-mean(traj.total for traj in group) / 2) for group in world.groups()}
    return {turn: own[turn] * raw[turn.traj.group] / mean(raw.values()) for turn in world.turns}


def gdpo_rewards(world: World, base: Base) -> ByTurn:
    def refused(turn: Turn) -> float:
        return -float(sum(not other.valid for other in turn.traj.turns))

    return whitened(plus(grpo(world, base), relative(world, base, refused, task)))


def rae(world: World, base: Base) -> ByTurn:
    return {
        turn: sum(o.reward for o in turn.traj.turns if o.role == turn.role) - turn.role_baseline
        for turn in world.turns
    }


def spo_stream(world: World, base: Base) -> ByTurn:
    return whitened({turn: turn.traj.total - turn.traj.past_mean for turn in world.turns})


def aspo(world: World, base: Base) -> ByTurn:
    own, result = grpo(world, base), {}
    first = {t: next((turn.index + 1 for turn in t.turns if turn.calls), None) for t in world.trajs}
    for turn, value in own.items():
        group = [first[t] for t in world.trajs if t.group == turn.traj.group and t.won]
        places = [place for place in group if place is not None]
        bonus, here = 0.0, first[turn.traj]
        if turn.traj.won and here is not None:
            bonus = 0.5 * (mean(places) - here) / mean(places)
        limit = 0.5 * abs(value)
        result[turn] = value + max(-limit, min(limit, bonus))
    return result


def xrpo(world: World, base: Base) -> ByTurn:
    own = grpo(world, base)
    score = {traj: mean(token.old for token in traj.tokens) for traj in world.trajs}
    for group in world.groups():
        middle = mean(score[traj] for traj in group)
        for turn in (turn for traj in group if traj.won for turn in traj.turns):
            if own[turn] > 0:
                rare = max(1 - math.exp(score[turn.traj] - middle), 0.0)
                own[turn] += min(rare, own[turn])
    return own


def fission(world: World, base: Base) -> ByTurn:
    def fork(turn: Turn) -> Hashable:
        parent = turn.traj.parent
        return ("group", turn.traj.group) if parent is None else (parent, turn.traj.branch)

    return relative(world, base, total, fork)


# -- critics -----------------------------------------------------------------------------------------------


def turn_ppo(world: World, base: Base) -> ByTurn:
    result = {}
    for traj in world.trajs:
        later, after = 0.0, 0.0
        for turn in reversed(traj.turns):
            value = turn.tokens[0].value
            later = turn.reward + 0.99 * after - value + 0.99 * 0.9 * later
            after, result[turn] = value, later
    return result


def poad(world: World) -> None:
    for traj in world.trajs:
        later, after = 0.0, 0.0
        for turn in reversed(traj.turns):
            for token in reversed(turn.tokens):
                last = token is turn.tokens[-1]
                gamma = 0.95 if last else 1.0
                delta = (turn.reward if last else 0.0) + gamma * after - token.value
                later = delta + gamma * 0.95 * later
                after, token.advantage = token.value, later


def bi_level_gae(world: World) -> None:
    for traj in world.trajs:
        later, after = 0.0, 0.0
        for turn in reversed(traj.turns):
            boundary = turn.tokens[-1].value
            later = turn.reward + 0.95 * after - boundary + 0.95 * later
            after, inner, follows = boundary, 0.0, 0.0
            for token in reversed(turn.tokens):
                delta = later if token is turn.tokens[-1] else follows - token.value
                inner = delta + inner
                token.advantage, follows = inner, token.value
    values = [token.advantage for token in world.tokens]
    scale = math.sqrt(deviation(values) ** 2 + 1e-8)
    for token in world.tokens:
        token.advantage = (token.advantage - mean(values)) / scale


def gtpo(world: World, base: Base) -> ByTurn:
    given = grpo(world, base)
    for traj in world.trajs:
        entropy = mean(token.entropy for token in traj.tokens)
        for turn in traj.turns:
            if abs(given[turn]) >= 1e-6:
                given[turn] = given[turn] - 0.1 * entropy if entropy <= math.log(2) else 0.0
    return given
