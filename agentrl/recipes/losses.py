"""Methods that differ from GRPO in the loss."""

from __future__ import annotations

from dataclasses import replace
from math import log1p

from agentrl.credit.advantage import Relative, one
from agentrl.credit.refine import Confident
from agentrl.learn.average import (
    Balanced,
    FixedLength,
    group_mean,
    task_mean,
    trajectory_mean,
    trajectory_sum,
)
from agentrl.learn.penalty import Entropy, EntropyTarget, KlToOld, KlToReference, LikelihoodDrop
from agentrl.learn.ratio import (
    BaseAndFibre,
    HolderRatio,
    SentenceRatio,
    cumulative_ratio,
    least_prefix_ratio,
)
from agentrl.learn.surrogate import (
    Clip,
    ElasticClip,
    GammaWeight,
    LogClip,
    MixedClip,
    ProbabilityClip,
    RatioVariance,
    SentenceClip,
    Soft,
    TowardTarget,
    importance,
    reinforce,
)
from agentrl.learn.weight import ConflictTokens, EntropyChange, PlanTokens, TopEntropy
from agentrl.recipes.about import ABSTRACT, GRADIENT, HAND, About, entry
from agentrl.recipes.base import GIGPO, GRPO, GSPO

CTPO = replace(GRPO, ratio=cumulative_ratio, surrogate=LogClip(0.025, 0.05, 0.5), average=trajectory_mean)
HOLDER_PO = replace(
    GRPO, ratio=HolderRatio(0.5), surrogate=LogClip(-log1p(-0.2), log1p(0.2)), average=trajectory_mean
)
MIN_PRO = replace(GRPO, ratio=least_prefix_ratio)
FIBER_PO = replace(GRPO, ratio=BaseAndFibre(0.05, 0.2), surrogate=importance)
SAPO = replace(GRPO, surrogate=Soft(1.0, 1.05), average=trajectory_mean)
LUSPO = replace(GSPO, surrogate=Clip(0.2, 0.2), average=FixedLength(1))
VESPO = replace(GRPO, surrogate=GammaWeight())
DCPO = replace(GRPO, surrogate=ProbabilityClip(dual=3.0), average=trajectory_sum)
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
SSPO = replace(GRPO, ratio=SentenceRatio(), surrogate=SentenceClip())
GTPO = replace(
    GRPO,
    advantage=Confident(Relative()),
    token_weight=ConflictTokens(),
    surrogate=reinforce,
    average=trajectory_mean,
)
GIGPO_SAPO = replace(GIGPO, surrogate=Soft(1.0, 1.05), penalties=(LikelihoodDrop(0.1),))


ABOUT: dict[str, About] = {
    "CTPO": entry(
        "cumulative ratios with a log window that grows", "2605.07331", "the cumulative token objective",
        "The window is that of the authors' script, -0.025 sqrt(t) to 0.05 sqrt(t); t counts sampled tokens "
        "that carry loss. Averaged over trajectories as in the paper, the script averages over tokens; no "
        "cap and no second bound for negative advantages.",
        "a fork with the authors' code; " + GRADIENT),
    "HOLDER_PO": entry(
        "one ratio per stream, a power mean", "2605.12058", "YihangChen9/HolderPO core_algos.py",
        "Power 0.5 and the window, ratios of 0.8 to 1.2, are fixed; any number may be a schedule. "
        "Sequences are streams, and advantages are those of tokens.",
        "read from the authors' code; limits at power 0 and 1"),
    "MIN_PRO": entry(
        "each ratio times the least before it", "2601.22718", "minimal prefix ratio",
        "The least is a constant, details of the objective not seen.", ABSTRACT),
    "FIBER_PO": entry(
        "bounded stream ratio and bounded distance of tokens from it", "2603.08239", "two levels",
        "Levels are stream and token; bounds are placeholders.",
        "an unofficial implementation; " + GRADIENT),
    "SAPO": entry(
        "a soft gate instead of the clip", "2511.20347", "the SAPO gate", "None known.",
        "as in verl and TRL; " + GRADIENT),
    "LUSPO": entry(
        "one ratio per stream, times the stream's length", "2602.05261", "the LUSPO objective",
        "Sums over sampled tokens, averaged over trajectories.",
        "TRL's loss on common tensors, within 2e-5; " + GRADIENT),
    "VESPO": entry(
        "a smooth weight of the whole stream's ratio instead of a clip", "2602.10693", "the gamma weight",
        "None known.", "TRL's loss on common tensors, within 2e-5; " + GRADIENT),
    "DCPO": entry(
        "bounds that widen for improbable tokens, summed over responses", "2509.02333",
        "lime-RL/DCPO core_algos.py, clip_type dynamic",
        "Without its smoothed advantages, which need statistics of past steps. The dual clip of its code "
        "at its default, 3.",
        "read from the authors' code; " + GRADIENT),
    "ETR": entry(
        "a clip window that grows with the advantage", "2601.03723", "elastic trust region",
        "The term of the group's variance is left out; 0.5 is a placeholder.", ABSTRACT),
    "BPO": entry(
        "ratios pulled to a bounded target", "2604.18578", "the bounded ratio target",
        "Absolute distance; 0.1 for rewards of order 1.", "third-party notes; " + GRADIENT),
    "R2VPO": entry(
        "no clip, the variance of ratios as cost", "2601.03320", "ratio-variance regularisation",
        "The multiplier is constant, theirs follows a dual step.", ABSTRACT),
    "DHPO": entry(
        "token and sequence ratios, clipped apart and mixed", "2601.05607", "average mixing",
        "Half each; pessimistic clip in both.", ABSTRACT),
    "TOP_ENTROPY": entry(
        "gradient on the fifth of tokens with the highest entropy", "2506.01939", "forking tokens",
        "Needs the column entropy. The quantile is over the batch.", "as in TRL; hand-derived values"),
    "STEER": entry(
        "less weight where entropy would change most", "2510.10150",
        "zz-haooo/STEER core_algos.py",
        "Needs the column entropy. Weights are set before the update, not at each step.",
        "read from the authors' code; hand-derived values"),
    "HICRA": entry(
        "more credit on planning tokens", "2509.03646", "A + 0.2 |A|",
        "Needs token spans: planning tokens are those of the role think.", "our reading of the abstract; "
        "hand-derived values"),
    "BALANCED": entry(
        "positive and negative tokens averaged apart", "2605.04077", "balanced aggregation",
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
        "0.1 is a placeholder; advantages are read per token, and within 1e-6 of zero they are zero. It "
        "needs several steps per batch to act.",
        ABSTRACT),
    "MDPO": entry(
        "no clip, a KL term to the policy before the update", "2005.09814", "mirror descent",
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
    "SSPO": entry(
        "one ratio per sentence, a clip window that grows with the sentence's entropy", "2511.04256",
        "sentence-level ratio and clip",
        "A sentence ends at a token with one of . , ; : ! ? or a line break. Bounds are times its mean "
        "entropy over that of the batch, within 1/2 and 2: our reading.", ABSTRACT),
    "GTPO": entry(
        "what successes and failures share is not punished, unsure ones are left out", "2508.03772",
        "winstonsmith1897/GTPO gtpo_training.py",
        "Positions count the sampled tokens of a trajectory. As in the code, the mask is made of the group's "
        "advantage before entropy shapes it. A group of equal rewards gives nothing; a "
        "completion is not divided by its number of shared tokens.",
        "read from the authors' code; " + HAND),
    "GIGPO_SAPO": entry(
        "step credit, soft gate, no falling likelihoods", "2505.10978", "a mix of ours",
        "Shows that parts compose.", "gradient tests"),
}  # fmt: skip
