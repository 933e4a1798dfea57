"""Methods that differ from GRPO in the loss."""

from __future__ import annotations

from dataclasses import replace

from agentrl.credit.advantage import Relative, one
from agentrl.learn.average import Balanced, group_mean, task_mean, trajectory_mean, trajectory_sum
from agentrl.learn.penalty import Entropy, EntropyTarget, KlToOld, KlToReference, LikelihoodDrop
from agentrl.learn.ratio import (
    BaseAndFibre,
    HolderRatio,
    cumulative_ratio,
    least_prefix_ratio,
)
from agentrl.learn.surrogate import (
    Clip,
    ElasticClip,
    LogClip,
    MixedClip,
    ProbabilityClip,
    RatioVariance,
    Soft,
    TowardTarget,
    importance,
)
from agentrl.learn.weight import EntropyChange, PlanTokens, TopEntropy
from agentrl.recipes.about import ABSTRACT, GRADIENT, About, entry
from agentrl.recipes.base import GIGPO, GRPO

CTPO = replace(GRPO, ratio=cumulative_ratio, surrogate=LogClip(0.2, 0.2, 0.5), average=trajectory_mean)
HOLDER_PO = replace(GRPO, ratio=HolderRatio(0.5), surrogate=LogClip(0.2, 0.2), average=trajectory_mean)
MIN_PRO = replace(GRPO, ratio=least_prefix_ratio)
FIBER_PO = replace(GRPO, ratio=BaseAndFibre(0.05, 0.2), surrogate=importance)
SAPO = replace(GRPO, surrogate=Soft(1.0, 1.05), average=trajectory_mean)
DCPO = replace(GRPO, surrogate=ProbabilityClip(), average=trajectory_sum)
ETR = replace(GRPO, surrogate=ElasticClip())
BPO = replace(GRPO, advantage=Relative(scale=one), surrogate=TowardTarget())
R2VPO = replace(GRPO, surrogate=RatioVariance())
DHPO = replace(GRPO, surrogate=MixedClip())
TOP_ENTROPY = replace(GRPO, token_weight=TopEntropy(0.2), surrogate=Clip(0.2, 0.28))
STEER = replace(GRPO, token_weight=EntropyChange(), surrogate=Clip(0.2, 0.28, dual=10.0))
HICRA = replace(GRPO, token_weight=PlanTokens())
BALANCED = replace(GRPO, average=Balanced())
GROUP_MEAN = replace(GRPO, average=group_mean)
TASK_MEAN = replace(GRPO, average=task_mean)
LLDS = replace(GRPO, penalties=(LikelihoodDrop(0.1),))
MDPO = replace(GRPO, surrogate=importance, penalties=(KlToOld(1.0),), epochs=2)
GRPO_KL = replace(GRPO, penalties=(KlToReference(0.04, "k3"),))
GRPO_KL2 = replace(GRPO, penalties=(KlToReference(0.04, "k2"),))
GRPO_ENTROPY = replace(GRPO, penalties=(Entropy(0.01),))
ENTROPY_TARGET = replace(GRPO, penalties=(EntropyTarget(0.5),))
GIGPO_SAPO = replace(GIGPO, surrogate=Soft(1.0, 1.05), penalties=(LikelihoodDrop(0.1),))


ABOUT: dict[str, About] = {
    "CTPO": entry(
        "cumulative ratios with a log window that grows", "2605.07331", "the cumulative token objective",
        "The window 0.2 sqrt(t) counts sampled tokens that carry loss.",
        "a fork with the authors' code; " + GRADIENT),
    "HOLDER_PO": entry(
        "one ratio per stream, a power mean", "no arXiv id known to us", "YihangChen9/HolderPO core_algos.py",
        "Power 0.5 and the window 0.2 are fixed; any number may be a schedule.",
        "read from the authors' code; limits at power 0 and 1"),
    "MIN_PRO": entry(
        "each ratio times the least before it", "no arXiv id known to us", "minimal prefix ratio",
        "The least is a constant, details of the objective not seen.", ABSTRACT),
    "FIBER_PO": entry(
        "bounded stream ratio and bounded distance of tokens from it", "2603.08239", "two levels",
        "Levels are stream and token; bounds are placeholders.",
        "an unofficial implementation; " + GRADIENT),
    "SAPO": entry(
        "a soft gate instead of the clip", "2511.20347", "the SAPO gate", "None known.",
        "as in verl and TRL; " + GRADIENT),
    "DCPO": entry(
        "bounds that widen for improbable tokens, summed over responses", "2509.02333",
        "lime-RL/DCPO core_algos.py", "Without its smoothed advantages, which need statistics of past steps.",
        "read from the authors' code; " + GRADIENT),
    "ETR": entry(
        "a clip window that grows with the advantage", "no arXiv id known to us", "elastic trust region",
        "The term of the group's variance is left out; 0.5 is a placeholder.", ABSTRACT),
    "BPO": entry(
        "ratios pulled to a bounded target", "2604.18578", "the bounded ratio target",
        "Absolute distance; 0.1 for rewards of order 1.", "third-party notes; " + GRADIENT),
    "R2VPO": entry(
        "no clip, the variance of ratios as cost", "no arXiv id known to us", "ratio-variance regularisation",
        "The multiplier is constant, theirs follows a dual step.", ABSTRACT),
    "DHPO": entry(
        "token and sequence ratios, clipped apart and mixed", "no arXiv id known to us", "average mixing",
        "Half each; pessimistic clip in both.", ABSTRACT),
    "TOP_ENTROPY": entry(
        "gradient on the fifth of tokens with the highest entropy", "2506.01939", "forking tokens",
        "Needs the column entropy. The quantile is over the batch.", "as in TRL; hand-derived values"),
    "STEER": entry(
        "less weight where entropy would change most", "no arXiv id known to us",
        "zz-haooo/STEER core_algos.py",
        "Needs the column entropy. Weights are set before the update, not at each step.",
        "read from the authors' code; hand-derived values"),
    "HICRA": entry(
        "more credit on planning tokens", "2509.03646", "A + 0.2 |A|",
        "Needs token spans: planning tokens are those of the role think.", "our reading of the abstract; "
        "hand-derived values"),
    "BALANCED": entry(
        "positive and negative tokens averaged apart", "no arXiv id known to us", "balanced aggregation",
        "Signs are those of tokens.", "our reading of the abstract; hand-derived values"),
    "GROUP_MEAN": entry(
        "every group weighs the same", "2402.03300", "GRPO", "Ours: tokens of a group weigh the same.",
        "hand-derived values"),
    "TASK_MEAN": entry(
        "groups, trajectories and tokens weigh the same at each level", "2402.03300",
        "eq. 3, averaged over tasks",
        "Empty trajectories do not count.", "hand-derived values"),
    "LLDS": entry(
        "GRPO against falling likelihoods", "2512.04220", "the displacement penalty",
        "0.1 is a placeholder; advantages are read per token. It needs several steps per batch to act.",
        ABSTRACT),
    "MDPO": entry(
        "no clip, a KL term to the policy before the update", "no arXiv id known to us", "mirror descent",
        "A constant step size; two passes.", ABSTRACT),
    "GRPO_KL": entry(
        "GRPO with the paper's KL term", "2402.03300", "eq. 3 and 4", "Tokens are averaged over the batch.",
        "gradient tests"),
    "GRPO_KL2": entry(
        "GRPO with a KL term of correct gradient", "2402.03300", "eq. 3", "The estimator is k2.",
        "gradient tests"),
    "GRPO_ENTROPY": entry(
        "GRPO with an entropy bonus", "2402.03300", "eq. 3", "The bonus is ours, as common in practice.",
        "gradient tests"),
    "ENTROPY_TARGET": entry(
        "GRPO held near an entropy", "2402.03300", "eq. 3", "The squared distance is ours.",
        "gradient tests"),
    "GIGPO_SAPO": entry(
        "step credit, soft gate, no falling likelihoods", "2505.10978", "a mix of ours",
        "Shows that parts compose.", "gradient tests"),
}  # fmt: skip
