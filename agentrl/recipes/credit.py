"""Methods that differ from GRPO in whom credit goes to."""

from __future__ import annotations

from dataclasses import replace

from agentrl.credit.advantage import (
    AcrossBatch,
    MeanAbsolute,
    PlusRow,
    Relative,
    Return,
    Std,
    median,
    nothing,
    one,
)
from agentrl.credit.critic import BiLevelGae, SiblingValue, TokenGae, TurnGae
from agentrl.credit.gain import InformationGain
from agentrl.credit.history import MeanAmong, NestedHistory
from agentrl.credit.normalise import (
    BetaDensity,
    FirstTurns,
    HarderFirst,
    MedianAbsolute,
    OneTurn,
    Total,
    VirtualMean,
    VirtualStd,
    first_and_last_reward,
    last_reward,
    mean_itself,
    reward_before_last,
    same_role,
    same_role_and_turn,
)
from agentrl.credit.peers import SimilarObservation, everyone, same_task, same_turn
from agentrl.credit.reward import InvalidPenalty, environment_reward
from agentrl.credit.tree import (
    PlaceDifference,
    SamePast,
    SubtreeMean,
    Whitened,
    branch_place,
    same_step,
    same_tree,
    shared_turn,
)
from agentrl.learn.average import turn_mean
from agentrl.learn.critic import Critic
from agentrl.learn.optimizer import AdamW
from agentrl.learn.ratio import turn_ratio
from agentrl.learn.surrogate import Clip
from agentrl.plan import EntropyForks, Expand, Plan, Segments
from agentrl.recipes.about import ABSTRACT, HAND, About, entry
from agentrl.recipes.base import GIGPO, GRPO

GIGPO_SIMILAR = replace(
    GIGPO,
    advantage=Relative(scale=one)
    + 1.0 * Relative(Return(0.95), SimilarObservation(0.9), scale=one, per="turn"),
)
HGPO = replace(GRPO, advantage=NestedHistory(PlusRow(Return(0.95), InvalidPenalty(0.1))))
IGPO = replace(GRPO, advantage=InformationGain())
IGPO_JOINT = replace(GRPO, advantage=InformationGain(pool="joint"))
MT_GRPO = replace(
    GRPO,
    advantage=OneTurn(
        Relative(last_reward) + 1.0 * FirstTurns(Relative(reward_before_last, same_turn)),
        single=Relative(first_and_last_reward),
    ),
)
TURN_PPO = replace(GRPO, advantage=TurnGae(0.99, 0.9), critic=Critic(), ratio=turn_ratio, average=turn_mean)
BI_LEVEL_GAE = replace(GRPO, advantage=BiLevelGae(), critic=Critic())
POAD = replace(GRPO, advantage=TokenGae(1.0, 0.95, 0.95), critic=Critic())
POISE = replace(
    GRPO,
    advantage=SiblingValue(),
    critic=Critic(AdamW(lr=1e-3, weight_decay=0.0), clip=1e6, trunk="stays"),
)
TEMPO = replace(GRPO, advantage=Relative(scale=one) + 1.0 * PlaceDifference(SamePast()))
SALT = replace(GRPO, advantage=MeanAmong(Relative(), same_step))
TREE_GRPO = replace(
    GRPO, advantage=Relative() + 1.0 * Relative(peers=same_tree), plan=Plan(brancher=Expand(2, 3))
)
TREE_PO = replace(
    GRPO, advantage=Whitened(SubtreeMean(branch_place)), plan=Plan(brancher=Segments(), repeats=3)
)
SPO_TREE = replace(GRPO, advantage=PlaceDifference(branch_place), plan=Plan(brancher=Segments(turns=2)))
ARPO_HARD = replace(GRPO, advantage=MeanAmong(Relative(), shared_turn), plan=Plan(brancher=EntropyForks()))
MARS = replace(GRPO, advantage=Relative(Return(1.0), same_role_and_turn, per="turn"))
M_GRPO = replace(GRPO, advantage=Relative(peers=same_role))
LITE_PPO = replace(GRPO, advantage=Relative(scale=AcrossBatch(Std())))
REINFORCE_PP = replace(GRPO, advantage=Relative(peers=everyone))
REINFORCE_PP_BASELINE = replace(GRPO, advantage=Whitened(Relative(scale=one)))
MAX_RL = replace(GRPO, advantage=Relative(scale=mean_itself))
NGRPO = replace(
    GRPO, advantage=Relative(center=VirtualMean(), scale=VirtualStd()), surrogate=Clip(0.16, 0.24)
)
MC_GRPO = replace(GRPO, advantage=Relative(center=median, scale=MedianAbsolute()))
BETA_NORM = replace(GRPO, advantage=Relative(scale=BetaDensity()))
DGPO_DIFFICULTY = replace(GRPO, advantage=HarderFirst(Relative(scale=MeanAbsolute()), same_task, 2.0))
GDPO_REWARDS = replace(
    GRPO,
    advantage=Whitened(Relative(Total(environment_reward)) + 1.0 * Relative(Total(InvalidPenalty(1.0)))),
)
CENTERED = replace(GRPO, advantage=Relative(Return(1.0), everyone, nothing, AcrossBatch(Std()), lone="raw"))

_WORKED = "the worked example of the authors' code; hand-derived cases; parity with plain loops"


ABOUT: dict[str, About] = {
    "GIGPO_SIMILAR": entry(
        "GIGPO with anchors that look alike", "2505.10978", "similarity mode of langfengQ/verl-agent",
        "Texts with difflib ratio 0.9; otherwise as GIGPO.",
        "figures of the authors' code on random batches; " + HAND),
    "HGPO": entry(
        "step credit over nested histories", "2602.22817", "verl-agent recipe/hgpo",
        "Figures within 1e-6 of zero are zero; two steps of history; a refused turn loses 0.1.",
        "figures of the authors' code on random batches; " + _WORKED),
    "IGPO": entry(
        "turn rewards from information gain, normalised apart from outcomes", "2510.14967",
        "GuoqingWang1/IGPO, third published state",
        "Needs a world with gold(); answers stand as its protocol writes them. Outcomes are totals of the "
        "environment's reward; unmeasured beliefs count as unchanged.", _WORKED),
    "IGPO_JOINT": entry(
        "turn rewards from information gain, one pool with outcomes", "2510.14967",
        "GuoqingWang1/IGPO, third published state, joint mode",
        "Needs a world with gold().", _WORKED),
    "MT_GRPO": entry(
        "outcome credit everywhere, turn reward at the first turn", "2505.11821",
        "SiliangZeng/Multi-Turn-RL-Agent, one split point",
        "The split is after the first turn instead of the first result tag; the outcome is the last reward, "
        "which is no turn's reward. A trajectory of one turn has one term, the sum of both rewards compared "
        "in the group, as theirs without a result.",
        "read from the authors' code; " + HAND),
    "TURN_PPO": entry(
        "a critic over turns, ratio and clip per turn", "2512.17008", "turn-level GAE",
        "The critic is a copy of the policy's trunk with a head of its own. Advantages are not "
        "whitened; truncated episodes are not bootstrapped.", "from summaries; " + HAND),
    "BI_LEVEL_GAE": entry(
        "GAE over turns, then over the tokens of each", "2504.20073",
        "mll-lab-nu/RAGEN core_algos.py",
        "The critic is a copy of the policy's trunk with a head of its own. Boundaries are turns, not "
        "nonzero rewards.",
        "the figures of the authors' unit test"),
    "POAD": entry(
        "token GAE that discounts between actions only", "2405.15821", "action decomposition",
        "The critic is a copy of the policy's trunk with a head of its own.", ABSTRACT),
    "POISE": entry(
        "a linear probe of the policy's states, read from the other members, as baseline", "2605.07579",
        "cross-rollout value",
        "The probe reads hidden states of the policy as it was when training began, along the tokens; no "
        "entropies.", ABSTRACT),
    "TEMPO": entry(
        "outcome credit plus value differences in the prefix tree", "2509.18314",
        "branch-gated temporal difference",
        "Prefixes are histories of observation keys instead of tokens; no division.", ABSTRACT),
    "SALT": entry(
        "equal steps of a group share their mean advantage", "2510.20022", "merging of a trajectory graph",
        "Experimental: the rule is our guess from the abstract. A step is observation, action and next "
        "observation.", ABSTRACT),
    "TREE_GRPO": entry(
        "credit within the prompt plus credit within the tree", "2509.21240",
        "AMAP-ML/Tree-GRPO", "A tree of one trajectory adds 0, theirs adds its raw score.", _WORKED),
    "TREE_PO": entry(
        "outcome against the mean of every subtree on the way", "2508.17445",
        "multimodal-art-projection/TreePO core_algos.py, size weights",
        "Segments are turns; whitened over kept turns, not tokens. A lone trajectory counts 0 before "
        "whitening, theirs its raw score. A path stops early after three equal turns in a row, theirs by "
        "repeated text.", "read from the authors' code; " + HAND),
    "SPO_TREE": entry(
        "value differences between places of a tree", "2505.23564", "AIFrameResearch/SPO, tree",
        "The value of a place is the mean over its trajectories, theirs over its children; no token mask.",
        "read from the authors' code; " + HAND),
    "ARPO_HARD": entry(
        "turns shared by branches take their mean advantage", "2507.19849", "hard assignment",
        "Shared turns are learnt once, so on a true tree its loss is GRPO's. Forks look at the tokens after "
        "the reply.", "secondary source; " + HAND),
    "MARS": entry(
        "returns compared with the same role at the same turn", "2510.15414",
        "turn-level, agent-specific normalisation", "Statistics over the whole batch.", ABSTRACT),
    "M_GRPO": entry(
        "outcome compared among trajectories in which a role acts", "2511.13288",
        "hierarchical group credit",
        "Each trajectory counts once per role; no quality reward for sub-agents.", ABSTRACT),
    "LITE_PPO": entry(
        "group mean, deviation over the batch", "2508.08221", "the Lite PPO advantage",
        "The deviation is of all totals of the batch.", ABSTRACT),
    "REINFORCE_PP": entry(
        "mean and deviation over the whole batch", "2501.03262", "global normalisation",
        "Statistics are over trajectories, no token-level KL in the reward.", HAND),
    "REINFORCE_PP_BASELINE": entry(
        "group mean, then whitening over the batch", "2501.03262", "the baseline variant",
        "Whitened over kept turns, theirs over tokens.", HAND),
    "MAX_RL": entry(
        "deviation from the group mean over the group mean", "2602.02710", "the estimator",
        "A group whose mean is not positive gets 0.", HAND),
    "NGRPO": entry(
        "a group and one imagined best member", "2509.18851",
        "nangongrui-ngr/NGRPO core_algos.py",
        "The best reward is 1. It stands in every group of two or more, as in the code, which leaves a lone "
        "member its raw score.",
        "figures of the authors' rule; " + HAND),
    "MC_GRPO": entry(
        "median and median absolute deviation", "2601.22582", "lotusroot-kim/MC-GRPO",
        "The deviation is at least 0.25: with binary rewards it is otherwise 0. The pivot is kept, at 0.",
        "from the authors' description; " + HAND),
    "BETA_NORM": entry(
        "scaled by a Beta density fitted to the pass rates", "2506.02864",
        "changyi7231/BNPO bnpo_ray_trainer.py", "Population moments; BNPO in the paper.",
        "read from the authors' code; " + HAND),
    "DGPO_DIFFICULTY": entry(
        "mean absolute deviation, harder tasks weigh more", "2601.20614", "MathForge",
        "The temperature 2 is a placeholder.", ABSTRACT),
    "GDPO_REWARDS": entry(
        "each reward normalised in its group before they are added", "2601.05242",
        "decoupled normalisation as verl and TRL have it",
        "The two rewards here are the environment's and the validity of actions: put in your own.", HAND),
    "CENTERED": entry(
        "the undivided return over the deviation of the batch", "Williams 1992, Machine Learning 8",
        "REINFORCE with return to go", "Ours: no baseline, one scale for all.", HAND),
}  # fmt: skip
