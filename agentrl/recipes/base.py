"""The base methods and the core of turn-level credit."""

from __future__ import annotations

from dataclasses import replace

from agentrl.credit.advantage import (
    PlusRow,
    Relative,
    Return,
    Std,
    episode_total,
    nothing,
    one,
    others_mean,
)
from agentrl.credit.keep import NoVoid, mixed_groups, no_code_or_answer
from agentrl.credit.peers import everyone, same_observation, same_state
from agentrl.credit.reward import InvalidPenalty
from agentrl.learn.algorithm import Algorithm
from agentrl.learn.average import FixedLength, token_mean, trajectory_mean
from agentrl.learn.penalty import KlToReference
from agentrl.learn.ratio import sequence_ratio, token_ratio
from agentrl.learn.surrogate import Clip, StopClip, reinforce
from agentrl.recipes.about import LOOPS, PARITY, About

GRPO = Algorithm(ratio=token_ratio, average=token_mean)
DR_GRPO = replace(GRPO, advantage=Relative(scale=one), average=FixedLength(1024))
RLOO = replace(GRPO, advantage=Relative(center=others_mean, scale=one), surrogate=reinforce)
REINFORCE = replace(
    GRPO, advantage=Relative(peers=everyone, center=nothing, scale=one, lone="raw"), surrogate=reinforce
)
DAPO = replace(GRPO, keep=mixed_groups, surrogate=Clip(0.2, 0.28), on_empty="skip")
CISPO = replace(GRPO, surrogate=StopClip(1.0, 0.28))
GSPO = replace(GRPO, ratio=sequence_ratio, surrogate=Clip(3e-4, 4e-4), average=trajectory_mean)
TURN_PPO_RATIO = Algorithm()
SIMPLE_TIR = replace(
    GRPO,
    keep=NoVoid(no_code_or_answer) & mixed_groups,
    surrogate=Clip(0.2, 0.28, dual=3.0),
    on_empty="skip",
)
GIGPO = replace(
    GRPO, advantage=Relative(scale=one) + 1.0 * Relative(Return(0.95), same_state, scale=one, per="turn")
)
GIGPO_OBSERVATION = replace(
    GIGPO,
    advantage=Relative(scale=one) + 1.0 * Relative(Return(0.95), same_observation, scale=one, per="turn"),
)
GIGPO_BY_TRAJECTORY = replace(GIGPO, average=trajectory_mean)
GIGPO_REFUSED = replace(
    GIGPO_BY_TRAJECTORY,
    advantage=Relative(scale=one)
    + 1.0 * Relative(PlusRow(Return(0.95), InvalidPenalty(0.1)), same_state, scale=one, per="turn"),
)
GIGPO_VERL_AGENT = replace(
    GRPO,
    advantage=Relative(PlusRow(episode_total, InvalidPenalty(0.1)), scale=Std(), per="turn", lone="raw")
    + 1.0 * Relative(PlusRow(Return(0.95), InvalidPenalty(0.1)), same_observation, scale=Std(), per="turn"),
    average=token_mean,
    penalties=(KlToReference(0.01, "k3"),),
)


ABOUT = {
    "GRPO": About(
        title="group-relative policy optimisation",
        paper="2402.03300",
        equations="eq. 3; section 4.1.2, outcome supervision",
        departures="Tokens are averaged over the batch, not per sequence; "
        "the deviation is unbiased (n - 1), as in verl.",
        checked=PARITY,
    ),
    "DR_GRPO": About(
        title="GRPO without the length and deviation biases",
        paper="2503.20783",
        equations="the Dr. GRPO objective",
        departures="The constant length is 1024: set it to your token limit per trajectory.",
        checked=PARITY,
    ),
    "RLOO": About(
        title="REINFORCE with a leave-one-out baseline",
        paper="2402.14740",
        equations="the RLOO estimator",
        departures="Tokens are averaged: the paper's sum over a sequence, up to one factor per batch.",
        checked=PARITY,
    ),
    "REINFORCE": About(
        title="the plain policy gradient, no baseline",
        paper="Williams 1992, Machine Learning 8",
        equations="REINFORCE with baseline 0",
        departures="Every turn takes the undiscounted total of its trajectory.",
        checked=PARITY,
    ),
    "DAPO": About(
        title="GRPO with asymmetric clipping, mixed groups only and token averaging",
        paper="2503.14476",
        equations="sections 3.1 to 3.3",
        departures="Dropped groups are not replaced here (the rollout allocator can), and a batch of which "
        "nothing is left is skipped and counted; no over-long penalty.",
        checked="hand-derived filter example; " + PARITY,
    ),
    "CISPO": About(
        title="clipped importance weights with stopped gradient",
        paper="2506.13585",
        equations="the CISPO objective",
        departures="The upper bound 0.28 is our choice; the paper tunes it.",
        checked="gradient tests; parity with plain loops",
    ),
    "GSPO": About(
        title="one ratio per sequence",
        paper="2507.18071",
        equations="the GSPO objective in its token form",
        departures="A sequence is a token stream: all sampled tokens of a trajectory, "
        "unless its history was rewritten.",
        checked="gradient tests; parity with plain loops",
    ),
    "TURN_PPO_RATIO": About(
        title="ratio, clip and average per turn: what Algorithm() is",
        paper="2512.17008",
        equations="the turn as the action; the rest is ours",
        departures="Group-relative instead of a turn-level critic; the ratio is a geometric mean.",
        checked="gradient tests; parity with plain loops",
    ),
    "SIMPLE_TIR": About(
        title="GRPO without trajectories that hold a void turn",
        paper="2509.02479",
        equations="the authors' code, ltzheng/SimpleTIR",
        departures="Void trajectories stay in the baseline, as in the code; groups of equal rewards are "
        "dropped (theirs: deviation below 1e-3). A batch of which nothing is left is skipped and counted.",
        checked="the baseline: its own code on random batches, within 2e-5; " + PARITY,
    ),
    "GIGPO": About(
        title="episode credit plus credit among visits of the same true state",
        paper="2505.10978",
        equations="the episode and the step relative advantage",
        departures="Anchors are the environment's true state (privileged, in training only); episode "
        "statistics are over trajectories, as in the paper and unlike its code; no deviation in either term; "
        "no penalty.",
        checked=PARITY,
    ),
    "GIGPO_OBSERVATION": About(
        title="GIGPO with anchors that the agent has seen",
        paper="2505.10978",
        equations="the episode and the step relative advantage",
        departures="As GIGPO, but anchors are observation keys; error replies make no key.",
        checked=PARITY,
    ),
    "GIGPO_BY_TRAJECTORY": About(
        title="GIGPO in which every trajectory weighs the same",
        paper="2505.10978",
        equations="the episode and the step relative advantage; averaged as in GRPO, arXiv 2402.03300 eq. 3",
        departures="As GIGPO, averaged over trajectories and not over tokens, so that long "
        "failures do not outweigh short successes; the paper averages over steps.",
        checked=PARITY,
    ),
    "GIGPO_REFUSED": About(
        title="GIGPO_BY_TRAJECTORY, where a refused action costs something at once",
        paper="2505.10978",
        equations="the episode and the step relative advantage; langfengQ/verl-agent, the invalid-action "
        "penalty of .1",
        departures="The penalty lowers the refused turn in the step term alone, and nothing is divided "
        "by a deviation, which would let it outweigh success where all returns are alike.",
        checked=LOOPS,
    ),
    "GIGPO_VERL_AGENT": About(
        title="GiGPO exactly as verl-agent computes it",
        paper="2505.10978",
        equations="langfengQ/verl-agent, gigpo/core_gigpo.py",
        departures="The parity setting: statistics over rows in both terms, deviations, raw lone episodes, "
        "a penalty on the refused row only. Rows are not duplicated to fill batches. For its similarity "
        "mode put SimilarObservation(0.9) in place of same_observation.",
        checked="its own code on the worked example and on random batches, within 2e-5; " + PARITY,
    ),
}
