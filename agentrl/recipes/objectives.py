"""Objectives over groups and over pairs, and another optimizer."""

from __future__ import annotations

from dataclasses import replace

from agentrl.credit.keep import mixed_groups
from agentrl.credit.objective import (
    Contrast,
    Desirable,
    Discriminate,
    NegativeAware,
    Ranked,
    Regression,
    RelativeRegression,
    RewardsAsLabels,
)
from agentrl.credit.uniform import UniformValue
from agentrl.learn.average import trajectory_mean
from agentrl.learn.optimizer import Lion
from agentrl.learn.surrogate import reinforce
from agentrl.recipes.about import LOOPS, READING, About, entry
from agentrl.recipes.base import GRPO

_GROUPS = replace(GRPO, keep=mixed_groups, surrogate=reinforce, average=trajectory_mean, on_empty="skip")

REAL = replace(_GROUPS, advantage=RewardsAsLabels())
DISCO = replace(_GROUPS, advantage=Discriminate())
REG_GRPO = replace(_GROUPS, advantage=Regression())
NFT = replace(GRPO, keep=mixed_groups, advantage=NegativeAware(), surrogate=reinforce, on_empty="skip")
TRPA = replace(_GROUPS, advantage=Ranked())
COPG = replace(_GROUPS, advantage=Contrast())
REFUEL = replace(_GROUPS, advantage=RelativeRegression())
KTO = replace(_GROUPS, advantage=Desirable())
ROVER = replace(GRPO, advantage=UniformValue(), surrogate=reinforce)
GRPO_LION = replace(GRPO, optimizer=Lion())

_EACH = "Groups of equal rewards are dropped; the objective is averaged over groups. "

ABOUT: dict[str, About] = {
    "REAL": entry(
        "a group's successes against its failures, as labels", "2602.05630",
        "rewards as labels", _EACH, "as ms-swift documents it; " + LOOPS),
    "DISCO": entry(
        "each success against the softest of the failures", "2505.12366",
        "Optimization-AI/DisCO core_algos.py, log-likelihood score",
        _EACH + "Without the hinge on the KL.", "read from the authors' code; " + LOOPS),
    "REG_GRPO": entry(
        "log-ratios regressed onto standard scores", "2506.07464", "the regressive loss",
        _EACH + "Scores are means over tokens.", READING),
    "NFT": entry(
        "the implicit negative policy, token by token", "2505.18116", "the NFT loss",
        "Task weights and the straight-through floor are from memory.",
        "on-policy equal to GRPO, as its authors show; " + LOOPS),
    "TRPA": entry(
        "better members preferred to worse ones, near the old policy", "2504.04524",
        "preference with a trust region", _EACH + "Levels are totals; 0.1 is a placeholder.", READING),
    "COPG": entry(
        "contrast of pairs with regularised rewards", "2406.19185", "the contrastive objective",
        _EACH + "Pairs are members of a group.", READING),
    "REFUEL": entry(
        "differences of log-ratios regressed onto differences of reward", "2410.04612",
        "regression of relative futures", _EACH + "Pairs are members of a group.", READING),
    "KTO": entry(
        "desirable and undesirable trajectories, without pairs", "2402.01306", "the KTO value function",
        _EACH + "The reference point is the group's own mean.", READING),
    "ROVER": entry(
        "log-ratios regressed onto the value of drawing uniformly", "2509.24981",
        "yuxiaooye/ROVER dp_actor.py and core_algos.py",
        "What follows a turn's last token is the next turn's first. It takes several steps on a batch to "
        "differ from a centred policy gradient; a lone member gets 0.",
        "read from the authors' code; " + LOOPS),
    "GRPO_LION": entry(
        "GRPO stepped by Lion", "2302.06675", "algorithm 2", "The gradient is GRPO's.",
        "steps computed by hand"),
}  # fmt: skip
