"""The loss of every recipe in loops: what each token is worth, with autograd doing the derivative only.

`RECIPES` names one plain rule for each recipe. A ratio over a unit is differentiated as the unit's own ratio
where the paper does so (turn, sequence, power mean), and held constant where its code does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from tests.parity import plain_credit as credit
from tests.parity import plain_value as valued
from tests.parity.plain_world import Token, Traj, Turn, World, deviation, grouped, mean

if TYPE_CHECKING:
    from tests.parity.plain_credit import Base, Credit

Term: TypeAlias = Callable[[Token], torch.Tensor]
Weigh: TypeAlias = Callable[[list[Token]], None]
Whole: TypeAlias = "Callable[[list[Token]], torch.Tensor]"


# -- averages: token.weight --------------------------------------------------------------------------------


def by_token(tokens: list[Token]) -> None:
    for token in tokens:
        token.weight = 1 / len(tokens)


def by(*units: Callable[[Token], object]) -> Weigh:
    """Units of each level weigh the same within the one above."""

    def weigh(tokens: list[Token]) -> None:
        share(tokens, 1.0, list(units))

    return weigh


def share(tokens: list[Token], whole: float, units: list[Callable[[Token], object]]) -> None:
    parts = list(grouped(tokens, units[0]).values()) if units else [[token] for token in tokens]
    for part in parts:
        if units:
            share(part, whole / len(parts), units[1:])
        else:
            part[0].weight = whole / len(parts)


def by_traj(token: Token) -> object:
    return token.traj


def by_turn(token: Token) -> object:
    return token.turn


def by_group(token: Token) -> object:
    return token.traj.group


def fixed_length(tokens: list[Token]) -> None:
    count = len({token.traj for token in tokens})
    for token in tokens:
        token.weight = 1 / (1024 * count)


def plain_sum(tokens: list[Token]) -> None:
    for token in tokens:
        token.weight = 1 / len({other.traj for other in tokens})


def trajectory_sum(tokens: list[Token]) -> None:
    for part in grouped(tokens, by_traj).values():
        for token in part:
            token.weight = 1 / len(part)


def balanced(tokens: list[Token]) -> None:
    groups = grouped(tokens, by_group).values()
    for group in groups:
        trajs = {token.traj for token in group}
        for same in grouped(group, lambda token: np.sign(token.advantage)).values():
            of = sum(sum(t in same for t in group if t.traj is traj) / sum(t.traj is traj for t in group)
                     for traj in trajs)  # fmt: skip
            for token in same:
                token.weight = of / len(trajs) / len(same) / len(groups)


# -- sentences ---------------------------------------------------------------------------------------------


def sspo(tokens: list[Token]) -> torch.Tensor:
    by_token(tokens)
    middle = mean(token.entropy for token in tokens)
    value = torch.zeros(())
    for part in grouped(tokens, lambda token: (token.turn, token.sentence)).values():
        shared = mean(float(token.gap.detach()) for token in part)
        width = min(max(mean(token.entropy for token in part) / middle, 0.5), 2.0)
        for token in part:
            r = (shared + token.now - token.now.detach()).exp()
            value = value + token.weight * clipped(r, token.advantage, 0.2 * width, 0.2 * width)
    return value


# -- units of ratios ---------------------------------------------------------------------------------------


def stream_of(tokens: list[Token]) -> dict[Token, tuple[Traj, int]]:
    number: dict[Turn, int] = {}
    for token in tokens:
        for turn in token.traj.turns:
            if turn not in number:
                number[turn] = 0 if turn.index == 0 else number[token.traj.turns[turn.index - 1]] + turn.fresh
    return {token: (token.traj, number[token.turn]) for token in tokens}


def ratio(token: Token) -> torch.Tensor:
    return token.gap.exp()


def clip(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return value.clamp(low, high)


def clipped(r: torch.Tensor, advantage: float, low: float = 0.2, high: float = 0.2) -> torch.Tensor:
    return torch.minimum(r * advantage, clip(r, 1 - low, 1 + high) * advantage)


# -- what a token is worth ---------------------------------------------------------------------------------


def ppo(low: float = 0.2, high: float = 0.2, dual: float | None = None) -> Term:
    def term(token: Token) -> torch.Tensor:
        value = clipped(ratio(token), token.advantage, low, high)
        if dual is not None and token.advantage < 0:
            value = torch.maximum(value, torch.tensor(dual * token.advantage, dtype=value.dtype))
        return value

    return term


def log_likelihood(token: Token) -> torch.Tensor:
    return token.advantage * token.now


def cispo(token: Token) -> torch.Tensor:
    return clip(ratio(token), 0.0, 1.28).detach() * token.advantage * token.now


def open_clip(token: Token) -> torch.Tensor:
    r, advantage = ratio(token), token.advantage
    if advantage > 0 and r > 1.28:
        return 1.28 * r / r.detach() * advantage
    return clipped(r, advantage, 0.2, 0.28)


def sapo(token: Token) -> torch.Tensor:
    tau = 1.0 if token.advantage > 0 else 1.05
    return token.advantage * 4 / tau / (1 + torch.exp(-tau * (ratio(token) - 1)))


def dcpo(token: Token) -> torch.Tensor:
    q = math.exp(token.old)
    low = (1 + math.sqrt(max(0.0, 1 - 4 * 0.2 / q))) / 2
    high = min((1 + math.sqrt(1 + 4 * 0.28 / q)) / 2, 10.0)
    r = ratio(token)
    value = torch.minimum(r * token.advantage, clip(r, low, high) * token.advantage)
    return value if token.advantage >= 0 or r <= 3.0 else 0 * r + 3.0 * token.advantage


def etr(token: Token) -> torch.Tensor:
    size = abs(token.advantage)
    width = 0.2 * (1 + 0.5 * size / (1 + size))
    return clipped(ratio(token), token.advantage, width, width)


def bpo(token: Token) -> torch.Tensor:
    target = 0.8 + 2 * 0.2 / (1 + math.exp(-token.advantage / 0.1))
    return -abs(token.advantage) * (ratio(token) - target).abs()


def r2vpo(token: Token) -> torch.Tensor:
    return ratio(token) * token.advantage - (ratio(token) - 1) ** 2


def plain_importance(token: Token) -> torch.Tensor:
    return ratio(token) * token.advantage


# -- recipes -----------------------------------------------------------------------------------------------


PPO = ppo()


@dataclass(frozen=True)
class Plain:
    """One recipe, as a rule for each stage."""

    keep: Callable[[World], tuple[set[Turn], Base]] = credit.everything
    reward: Callable[[World], None] = credit.environment
    credit: Credit = credit.grpo
    token_credit: Callable[[World], None] | None = None
    term: Term = PPO
    total: Whole | None = None
    weigh: Weigh = by_token
    factor: Callable[[list[Token]], dict[Token, float]] | None = None
    penalty: Callable[[Token, list[Token], float], torch.Tensor] | None = None

    def loss(self, world: World, entropy: float) -> torch.Tensor:
        self.reward(world)
        turns, base = self.keep(world)
        given = self.credit(world, base)
        for token in world.tokens:
            token.advantage = given[token.turn]
        if self.token_credit is not None:
            self.token_credit(world)
        tokens = [token for token in world.tokens if token.turn in turns]
        self.weigh(tokens)
        factor = self.factor(tokens) if self.factor else dict.fromkeys(tokens, 1.0)
        if self.total is not None:
            return -self.total(tokens)
        loss = -sum((token.weight * factor[token] * self.term(token) for token in tokens), torch.zeros(()))
        if self.penalty is not None:
            for token in tokens:
                loss = loss + token.weight * self.penalty(token, tokens, entropy)
        return loss


def units(unit: Callable[[list[Token]], dict[Token, object]], weigh: Weigh, objective: Whole) -> Whole:
    """The sum over units of their weight times an objective of the whole unit."""

    def total(tokens: list[Token]) -> torch.Tensor:
        weigh(tokens)
        of = unit(tokens)
        parts = grouped(tokens, lambda token: of[token]).values()
        return sum((sum(t.weight for t in part) * objective(part) for part in parts), torch.zeros(()))

    return total


def turns_of(tokens: list[Token]) -> dict[Token, object]:
    return {token: token.turn for token in tokens}


def streams_of(tokens: list[Token]) -> dict[Token, object]:
    return dict(stream_of(tokens))


def geometric(low: float, high: float) -> Whole:
    def objective(part: list[Token]) -> torch.Tensor:
        r = (sum((t.gap for t in part), torch.zeros(())) / len(part)).exp()
        return clipped(r, part[0].advantage, low, high)

    return objective


def power_mean(part: list[Token]) -> torch.Tensor:
    r = (sum((ratio(t) ** 0.5 for t in part), torch.zeros(())) / len(part)) ** 2
    held = clip(r, 0.8, 1.2)
    return torch.minimum(r * part[0].advantage, held * part[0].advantage)


def along_streams(term: Callable[[list[Token], int], torch.Tensor]) -> Whole:
    """The weighted sum of terms that see the stream so far."""

    def total(tokens: list[Token]) -> torch.Tensor:
        of = stream_of(tokens)
        value = torch.zeros(())
        for part in grouped(tokens, lambda token: of[token]).values():
            for place, token in enumerate(part):
                value = value + token.weight * term(part, place)
        return value

    return total


def vespo(part: list[Token], place: int) -> torch.Tensor:
    token = part[place]
    log = sum(float(t.gap.detach()) for t in part)
    k, rate = (2, 3) if token.advantage >= 0 else (3, 2)
    return math.exp(rate + k * log - rate * math.exp(log)) * token.advantage * token.now


def ctpo(part: list[Token], place: int) -> torch.Tensor:
    token = part[place]
    so_far = sum(float(t.gap.detach()) for t in part[: place + 1])
    log = so_far + token.now - token.now.detach()
    wide = math.sqrt(place + 1)
    held = clip(log, -0.025 * wide, 0.05 * wide)
    return torch.minimum(log.exp() * token.advantage, held.exp() * token.advantage)


def min_pro(part: list[Token], place: int) -> torch.Tensor:
    least = min((float(ratio(t).detach()) for t in part[:place]), default=1.0)
    return clipped(ratio(part[place]) * least, part[place].advantage)


def fiber_po(part: list[Token], place: int) -> torch.Tensor:
    token = part[place]
    middle = mean(float(t.gap.detach()) for t in part) + token.now - token.now.detach()
    base = clip(middle, -0.05, 0.05)
    return (base + clip(token.gap - base, -0.2, 0.2)).exp() * token.advantage


def dhpo(part: list[Token], place: int) -> torch.Tensor:
    token = part[place]
    shared = (mean(float(t.gap.detach()) for t in part) + token.now - token.now.detach()).exp()
    return (clipped(ratio(token), token.advantage) + clipped(shared, token.advantage, 4e-4, 4e-4)) / 2


# -- token factors -----------------------------------------------------------------------------------------


def top_entropy(tokens: list[Token]) -> dict[Token, float]:
    bound = float(np.quantile(np.array([t.entropy for t in tokens], np.float32), 0.8))
    return {token: float(token.entropy >= bound) for token in tokens}


def steer(tokens: list[Token]) -> dict[Token, float]:
    change = {t: abs(t.advantage * (1 - math.exp(t.old)) * (t.old + t.entropy)) for t in tokens}
    low, high = min(change.values()), max(change.values())
    return {token: 1.0 - 0.2 * (size - low) / (high - low) for token, size in change.items()}


def plan(tokens: list[Token]) -> dict[Token, float]:
    return {t: 1 + 0.2 * float(np.sign(t.advantage)) * t.plan for t in tokens}


def entropy_advantage(tokens: list[Token]) -> dict[Token, float]:
    spread = deviation((t.entropy for t in tokens), 0) + 1e-6
    middle = mean(t.entropy for t in tokens)
    return {token: max(0.0, 1 + 0.3 * (token.entropy - middle) / spread) for token in tokens}


def improbable(tokens: list[Token]) -> dict[Token, float]:
    return {token: float(math.exp(token.old) <= 0.9) for token in tokens}


def conflict(tokens: list[Token]) -> dict[Token, float]:
    lines = [traj.tokens for traj in {token.traj for token in tokens}]
    kept = set(tokens)
    trajs = {line[0].traj for line in lines}

    def raw(token: Token) -> float:
        away = token.traj.total - mean(t.total for t in trajs if t.group == token.traj.group)
        return 0.0 if abs(away) < 1e-9 else away

    def drawn(token: Token, place: int, sign: int) -> bool:
        return any(
            line[0].traj.group == token.traj.group
            and len(line) > abs(place + 0.5)
            and line[place].id == token.id
            and line[place] in kept
            and raw(line[place]) * sign > 0
            for line in lines
        )

    found = dict.fromkeys(tokens, 1.0)
    for line in lines:
        for places in (range(len(line)), range(-1, -len(line) - 1, -1)):
            for place in places:
                if not all(drawn(line[place], place, sign) for sign in (1, -1)):
                    break
                if line[place] in kept:
                    found[line[place]] *= 2.0 if raw(line[place]) > 0 else 0.0
    return found


# -- penalties ---------------------------------------------------------------------------------------------


def kl3_to_reference(token: Token, _: list[Token], entropy: float) -> torch.Tensor:
    away = token.reference - token.now
    return 0.04 * (away.exp() - 1 - away)


def quarter_kl3_to_reference(token: Token, tokens: list[Token], entropy: float) -> torch.Tensor:
    return kl3_to_reference(token, tokens, entropy) / 4


def kl2_to_reference(token: Token, _: list[Token], entropy: float) -> torch.Tensor:
    return 0.04 * (token.reference - token.now) ** 2 / 2


def kl3_to_old(token: Token, _: list[Token], entropy: float) -> torch.Tensor:
    away = -token.gap
    return away.exp() - 1 - away


def entropy_bonus(token: Token, _: list[Token], entropy: float) -> torch.Tensor:
    return -0.01 * entropy_now(token, entropy)


def entropy_target(token: Token, _: list[Token], entropy: float) -> torch.Tensor:
    return 0.01 * (entropy_now(token, entropy) - 0.5) ** 2 / 2


def entropy_now(token: Token, entropy: float) -> torch.Tensor:
    """The test's stand-in for the entropy of the forward pass: a multiple of -log p."""
    return -entropy * token.now


def likelihood_drop(token: Token, tokens: list[Token], entropy: float) -> torch.Tensor:
    of = stream_of(tokens)
    fall = -sum(float(t.gap.detach()) for t in tokens if of[t] == of[token])
    if fall <= 1e-4 or token.advantage < -1e-6:
        return torch.zeros(())
    return 0.1 * (-token.gap).clamp(min=0)


# -- objectives over groups: differentiated as they are written --------------------------------------------


def over_groups(
    objective: Callable[[list[list[Token]]], torch.Tensor],
) -> Whole:
    """The mean over groups of an objective of the members' tokens."""

    def total(tokens: list[Token]) -> torch.Tensor:
        groups = [list(grouped(g, by_traj).values()) for g in grouped(tokens, by_group).values()]
        return sum((objective(group) for group in groups), torch.zeros(())) / len(groups)

    return total


def log_ratio(member: list[Token]) -> torch.Tensor:
    return sum((token.gap for token in member), torch.zeros(()))


def reference_ratio(member: list[Token]) -> torch.Tensor:
    return sum((token.now - token.reference for token in member), torch.zeros(()))


def split(group: list[list[Token]]) -> tuple[list[list[Token]], list[list[Token]]]:
    return [m for m in group if m[0].traj.won], [m for m in group if not m[0].traj.won]


def pairs(group: list[list[Token]]) -> list[tuple[list[Token], list[Token]]]:
    return [(a, b) for i, a in enumerate(group) for b in group[i + 1 :]]


def real(group: list[list[Token]]) -> torch.Tensor:
    good, bad = split(group)
    up = sum(((-log_ratio(m) / len(m) / 0.5).exp() for m in good), torch.ones(()))
    down = sum(((log_ratio(m) / len(m) / 0.5).exp() for m in bad), torch.ones(()))
    return -up.log() - down.log()


def disco(group: list[list[Token]]) -> torch.Tensor:
    good, bad = split(group)

    def score(m: list[Token]) -> torch.Tensor:
        return sum((t.now for t in m), torch.zeros(())) / len(m)

    soft = 10 * (sum(((score(m) / 10).exp() for m in bad), torch.zeros(())) / len(bad)).log()
    return sum((score(m) - soft for m in good), torch.zeros(())) / len(good)


def reg_grpo(group: list[list[Token]]) -> torch.Tensor:
    scores = [log_ratio(m) / len(m) for m in group]
    middle = sum(scores, torch.zeros(())) / len(scores)
    totals = [m[0].traj.total for m in group]
    wanted = [(t - mean(totals)) / (deviation(totals) + 1e-6) for t in totals]
    return -sum(((s - middle - w) ** 2 for s, w in zip(scores, wanted, strict=True)), torch.zeros(())) / len(
        group
    )


def trpa(group: list[list[Token]]) -> torch.Tensor:
    ordered = [(a, b) for a in group for b in group if a[0].traj.total > b[0].traj.total]
    terms = [torch.nn.functional.logsigmoid(0.1 * (log_ratio(a) - log_ratio(b))) for a, b in ordered]
    return sum(terms, torch.zeros(())) / len(terms)


def copg(group: list[list[Token]]) -> torch.Tensor:
    def regularised(m: list[Token]) -> float:
        return m[0].traj.total - 0.05 * float(reference_ratio(m).detach())

    terms = [(regularised(a) - regularised(b)) * (log_ratio(a) - log_ratio(b)) for a, b in pairs(group)]
    return sum(terms, torch.zeros(())) / len(terms)


def refuel(group: list[list[Token]]) -> torch.Tensor:
    terms = [
        (log_ratio(a) - log_ratio(b) - (a[0].traj.total - b[0].traj.total)) ** 2 for a, b in pairs(group)
    ]
    return -sum(terms, torch.zeros(())) / len(terms)


def kto(group: list[list[Token]]) -> torch.Tensor:
    middle = max(mean(float(reference_ratio(m).detach()) for m in group), 0.0)
    terms = [torch.sigmoid((0.1 if m[0].traj.won else -0.1) * (reference_ratio(m) - middle)) for m in group]
    return sum(terms, torch.zeros(())) / len(terms)


def nft(tokens: list[Token]) -> torch.Tensor:
    value = torch.zeros(())
    for token in tokens:
        members = [traj for traj in {t.traj for t in tokens} if traj.group == token.traj.group]
        q = mean(traj.won for traj in members)
        r = ratio(token)
        left = (1 - q * r) / (1 - q)
        floored = left + (torch.clamp(left.detach(), min=1.0) - left.detach())  # straight through
        gain = r.log() if token.traj.won else floored.log()
        value = value + token.weight * math.sqrt((1 - q) / q) * gain
    return value


GRPO = Plain()
GROUPS = replace(GRPO, keep=credit.mixed)
LONG = by(by_traj)


def with_credit(rule: Credit) -> Plain:
    return replace(GRPO, credit=rule)


def against(std: str, center: str = "mean") -> Credit:
    return lambda world, base: credit.relative(world, base, credit.total, credit.task, std=std, center=center)


RECIPES: dict[str, Plain] = {
    "GRPO": GRPO,
    "DR_GRPO": replace(with_credit(credit.centered_by_group), weigh=fixed_length),
    "RLOO": replace(with_credit(against("none", "others")), term=log_likelihood),
    "REINFORCE": replace(
        with_credit(lambda w, b: {turn: turn.traj.total for turn in w.turns}), term=log_likelihood
    ),
    "DAPO": replace(GROUPS, term=ppo(0.2, 0.28)),
    "CISPO": replace(GRPO, term=cispo),
    "GSPO": replace(GRPO, total=units(streams_of, LONG, geometric(3e-4, 4e-4))),
    "TURN_PPO_RATIO": replace(GRPO, total=units(turns_of, by(by_turn), geometric(0.2, 0.2))),
    "SIMPLE_TIR": replace(GRPO, keep=credit.simple_tir, term=ppo(0.2, 0.28, 3.0)),
    "GIGPO": with_credit(credit.gigpo(credit.state)),
    "GIGPO_BY_TRAJECTORY": replace(with_credit(credit.gigpo(credit.state)), weigh=LONG),
    "GIGPO_REFUSED": replace(
        with_credit(credit.gigpo(credit.state, credit.penalised(credit.future(0.95)))), weigh=LONG
    ),
    "GIGPO_OBSERVATION": with_credit(credit.gigpo(credit.anchor)),
    "GIGPO_VERL_AGENT": replace(
        with_credit(credit.gigpo_verl_agent),
        penalty=quarter_kl3_to_reference,
    ),
    "GIGPO_SIMILAR": with_credit(credit.gigpo_similar),
    "HGPO": with_credit(credit.hgpo),
    "IGPO": with_credit(credit.igpo(joint=False)),
    "IGPO_JOINT": with_credit(credit.igpo(joint=True)),
    "MT_GRPO": with_credit(credit.mt_grpo),
    "TURN_PPO": replace(
        with_credit(credit.turn_ppo), total=units(turns_of, by(by_turn), geometric(0.2, 0.2))
    ),
    "BI_LEVEL_GAE": replace(GRPO, token_credit=credit.bi_level_gae),
    "POAD": replace(GRPO, token_credit=credit.poad),
    "POISE": with_credit(valued.poise),
    "TEMPO": with_credit(credit.tempo),
    "SALT": with_credit(credit.salt),
    "TREE_GRPO": with_credit(credit.tree_grpo),
    "TREE_PO": with_credit(credit.tree_po),
    "SPO_TREE": with_credit(lambda w, b: credit.value_differences(w, credit.node)),
    "ARPO_HARD": with_credit(credit.arpo_hard),
    "MARS": with_credit(
        lambda w, b: credit.relative(
            w, b, credit.future(1.0), lambda turn: (turn.role, turn.index), per_turn=True
        )
    ),
    "M_GRPO": with_credit(
        lambda w, b: credit.relative(w, b, credit.total, lambda turn: (turn.traj.group, turn.role))
    ),
    "LITE_PPO": with_credit(against("batch")),
    "REINFORCE_PP": with_credit(lambda w, b: credit.relative(w, b, credit.total, credit.all_turns)),
    "REINFORCE_PP_BASELINE": with_credit(lambda w, b: credit.whitened(credit.centered_by_group(w, b))),
    "MAX_RL": with_credit(against("mean")),
    "NGRPO": replace(with_credit(credit.ngrpo), term=ppo(0.16, 0.24)),
    "MC_GRPO": with_credit(against("median", "median")),
    "BETA_NORM": with_credit(credit.beta_norm),
    "DGPO_DIFFICULTY": with_credit(credit.dgpo_difficulty),
    "GDPO_REWARDS": with_credit(credit.gdpo_rewards),
    "CENTERED": with_credit(
        lambda w, b: credit.relative(
            w, b, credit.future(1.0), credit.all_turns, std="batch", center="nothing", raw=True
        )
    ),
    "CTPO": replace(GRPO, weigh=LONG, total=along_streams(ctpo)),
    "HOLDER_PO": replace(GRPO, total=units(streams_of, LONG, power_mean)),
    "MIN_PRO": replace(GRPO, total=along_streams(min_pro)),
    "FIBER_PO": replace(GRPO, total=along_streams(fiber_po)),
    "SAPO": replace(GRPO, term=sapo, weigh=LONG),
    "LUSPO": replace(GRPO, total=units(streams_of, plain_sum, geometric(0.2, 0.2))),
    "VESPO": replace(GRPO, total=along_streams(vespo)),
    "DCPO": replace(GRPO, term=dcpo, weigh=trajectory_sum),
    "ETR": replace(GRPO, term=etr),
    "BPO": replace(with_credit(credit.centered_by_group), term=bpo),
    "R2VPO": replace(GRPO, term=r2vpo),
    "DHPO": replace(GRPO, total=along_streams(dhpo)),
    "TOP_ENTROPY": replace(GRPO, factor=top_entropy, term=ppo(0.2, 0.28)),
    "STEER": replace(GRPO, factor=steer, term=ppo(0.2, 0.28, 10.0)),
    "HICRA": replace(GRPO, factor=plan),
    "BALANCED": replace(GRPO, weigh=balanced),
    "GROUP_MEAN": replace(GRPO, weigh=by(by_group)),
    "TASK_MEAN": replace(GRPO, weigh=by(by_group, by_traj)),
    "LLDS": replace(GRPO, penalty=likelihood_drop),
    "MDPO": replace(GRPO, term=plain_importance, penalty=kl3_to_old),
    "GRPO_KL": replace(GRPO, penalty=kl3_to_reference),
    "GRPO_KL2": replace(GRPO, penalty=kl2_to_reference),
    "GRPO_ENTROPY": replace(GRPO, penalty=entropy_bonus),
    "ENTROPY_TARGET": replace(GRPO, penalty=entropy_target),
    "SSPO": replace(GRPO, total=sspo),
    "GTPO": replace(with_credit(credit.gtpo), factor=conflict, term=log_likelihood, weigh=LONG),
    "GIGPO_SAPO": replace(with_credit(credit.gigpo(credit.state)), term=sapo, penalty=likelihood_drop),
    "OTC": replace(GRPO, reward=credit.otc),
    "UFO": replace(GRPO, reward=credit.ufo),
    "UNLIKELINESS": replace(GRPO, reward=credit.unlikeliness),
    "GRPO_LAMBDA": replace(GRPO, reward=credit.grpo_lambda),
    "FAPO": replace(GRPO, reward=credit.fapo),
    "ADA_GRPO": replace(GRPO, reward=credit.ada_grpo),
    "STEP_GRPO": with_credit(
        lambda w, b: credit.relative(
            w, b, lambda turn: turn.reward, lambda turn: (turn.traj.group, turn.index)
        )
    ),
    "FLOW_GRPO": replace(GRPO, weigh=by(by_traj, by_turn)),
    "RAE": with_credit(credit.rae),
    "SPO_STREAM": with_credit(credit.spo_stream),
    "GRPO_ROC": replace(GRPO, keep=credit.resample_on_correct),
    "D3S": replace(GRPO, keep=credit.most_spread),
    "DIFFICULTY": replace(GRPO, keep=credit.neither_hard_nor_easy),
    "ASPO": with_credit(credit.aspo),
    "XRPO": with_credit(credit.xrpo),
    "PIPO": with_credit(valued.pipo),
    "FISSION_GRPO": replace(with_credit(credit.fission), keep=credit.own_turns),
    "SPO_CHAIN": replace(
        with_credit(lambda w, b: credit.value_differences(w, credit.node)), factor=improbable
    ),
    "ARPO": GRPO,
    "AEPO": replace(GRPO, term=open_clip, factor=entropy_advantage),
    "SCALING_INTER": GRPO,
    "REAL": replace(GROUPS, total=over_groups(real)),
    "DISCO": replace(GROUPS, total=over_groups(disco)),
    "REG_GRPO": replace(GROUPS, total=over_groups(reg_grpo)),
    "NFT": replace(GROUPS, total=nft),
    "TRPA": replace(GROUPS, total=over_groups(trpa)),
    "COPG": replace(GROUPS, total=over_groups(copg)),
    "REFUEL": replace(GROUPS, total=over_groups(refuel)),
    "KTO": replace(GROUPS, total=over_groups(kto)),
    "ROVER": replace(with_credit(credit.centered_by_group), total=valued.rover),
    "GRPO_LION": GRPO,
}
