"""Methods that learn values or look back, in loops: a probe over siblings, play at random, the last batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from tests.parity.plain_world import Token, Traj, Turn, World, mean

if TYPE_CHECKING:
    from tests.parity.plain_credit import Base


def pipo(world: World, base: Base) -> dict[Turn, float]:
    result = {}
    for group in world.groups():
        middle = mean(traj.total for traj in group)
        spread = mean(abs(traj.total - middle) for traj in group)
        for traj in group:
            factor = 1.0
            if not math.isnan(traj.improvement):
                factor = traj.improvement * (0.1 if traj.improvement < 0 else 1.0)
            for turn in traj.turns:
                result[turn] = factor * (traj.total - middle) / (spread + 1e-6) if len(group) > 1 else 0.0
    return result


def poise(world: World, base: Base) -> dict[Turn, float]:
    def said(traj: Traj) -> float:
        return mean(token.value for token in traj.tokens)

    result = {}
    for traj in world.trajs:
        others = [t for t in world.trajs if t.group == traj.group and t is not traj and t in base]
        baseline = mean(said(t) for t in others) if others else traj.tokens[0].value
        for turn in traj.turns:
            result[turn] = traj.total - baseline
    return result


def rover(tokens: list[Token]) -> torch.Tensor:
    value = torch.zeros(())
    for token in tokens:
        line = token.traj.tokens
        place = line.index(token)
        after = 0.0
        if place + 1 < len(line):
            after = line[place + 1].vocabulary_now - line[place + 1].vocabulary
        value = value - token.weight * (token.gap - (token.advantage + after)) ** 2
    return value
