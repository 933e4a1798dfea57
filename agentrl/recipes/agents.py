"""Methods for agents: rewards for tool use and retries, roles, branches, and choices among rollouts."""

from __future__ import annotations

from dataclasses import replace

from agentrl.credit.advantage import Relative, nothing, one, over_past_mean, turn_reward
from agentrl.credit.keep import mixed_groups
from agentrl.credit.normalise import over_role_baseline
from agentrl.credit.peers import everyone, same_turn
from agentrl.credit.refine import EarlierTool, Improved, Novelty
from agentrl.credit.reward import Component, environment_reward
from agentrl.credit.shaping import BriefWhenEasy, Productive, RareFormat, SoonAndFresh, Unlikely
from agentrl.credit.subset import MostSpread, PassRateBetween, ResampleOnCorrect, own_turns
from agentrl.credit.tree import PlaceDifference, Whitened, branch_place, same_fork
from agentrl.learn.average import trajectory_turn_mean
from agentrl.learn.schedule import Cosine, Staircase
from agentrl.learn.surrogate import OpenClip
from agentrl.learn.weight import EntropyAdvantage, EveryCopy, Improbable
from agentrl.plan import BalancedForks, EntropyForks, MonteCarlo, Plan, Recover, Replay
from agentrl.recipes.about import HAND, LOOPS, READING, About, entry
from agentrl.recipes.base import GRPO

OTC = replace(GRPO, reward=Productive())
UFO = replace(GRPO, reward=SoonAndFresh())
UNLIKELINESS = replace(GRPO, reward=Unlikely())
GRPO_LAMBDA = replace(GRPO, reward=BriefWhenEasy())
FAPO = replace(GRPO, reward=environment_reward + -1.0 * Component("flawed"))
ADA_GRPO = replace(GRPO, reward=RareFormat(strength=Cosine(1.0, 0.0)))
STEP_GRPO = replace(GRPO, advantage=Relative(turn_reward, same_turn))
FLOW_GRPO = replace(GRPO, average=trajectory_turn_mean)
RAE = replace(GRPO, advantage=Relative(over_role_baseline, everyone, nothing, one, lone="raw"))
SPO_STREAM = replace(GRPO, advantage=Whitened(Relative(over_past_mean, everyone, nothing, one, lone="raw")))
GRPO_ROC = replace(GRPO, keep=ResampleOnCorrect(0.5), on_empty="skip")
D3S = replace(GRPO, keep=MostSpread(0.5), on_empty="skip")
DIFFICULTY = replace(GRPO, keep=PassRateBetween(0.2, 0.8) & mixed_groups, on_empty="skip")
ASPO = replace(GRPO, advantage=EarlierTool(Relative()))
XRPO = replace(GRPO, advantage=Novelty(Relative()))
PIPO = replace(GRPO, advantage=Improved(), plan=Plan(replay=Replay(groups=64, capacity=64, age=2)))
FISSION_GRPO = replace(
    GRPO,
    keep=own_turns,
    advantage=Relative(peers=same_fork),
    plan=Plan(brancher=Recover()),
    on_empty="skip",
)
SPO_CHAIN = replace(
    GRPO,
    advantage=PlaceDifference(branch_place),
    token_weight=Improbable(0.9),
    plan=Plan(brancher=MonteCarlo(samples=2)),
)
ARPO = replace(GRPO, token_weight=EveryCopy(), plan=Plan(brancher=EntropyForks()))
AEPO = replace(
    GRPO,
    surrogate=OpenClip(0.2, 0.28),
    token_weight=EntropyAdvantage(0.3),
    plan=Plan(brancher=BalancedForks()),
)
SCALING_INTER = replace(GRPO, plan=Plan(turns=Staircase((5, 8, 10))))

ABOUT: dict[str, About] = {
    "OTC": entry(
        "fewer tool calls earn more, and a failure earns 0", "2504.14870", "the tool-productive reward",
        "The fewest calls are those of the group and, by the ledger, of the task's past; 8 is a placeholder.",
        "a survey's notes, trigonometric form from memory; " + LOOPS),
    "UFO": entry(
        "a later success earns less, repeated actions cost", "2507.14295", "decay and repetition terms",
        "The world has to say that an answer was wrong and go on. Figures 0.5 and 0.1 are placeholders.",
        READING),
    "UNLIKELINESS": entry(
        "the likeliest successes earn less", "2506.02355", "the rank penalty",
        "Likelihoods are those of all sampled tokens. More passes per batch, as there, are yours to set.",
        "a second implementation's notes; " + LOOPS),
    "GRPO_LAMBDA": entry(
        "length costs only where a group succeeds often", "2505.18086", "lambda of the groups",
        "The length term is a logistic of the standard score, a placeholder.", READING),
    "FAPO": entry(
        "a right answer by flawed reasoning earns nothing extra", "2510.22543", "the flaw penalty",
        "Who finds flaws is the world: it gives the reward component 'flawed', 1 where right and flawed.",
        READING),
    "ADA_GRPO": entry(
        "a rare way of answering earns more, less so with time", "2505.20258",
        "TEAM-ARM/ARM core_algos.py, cosine decay",
        "The format is whether a trajectory marks reasoning and whether it calls a tool; theirs are tags.",
        "read from the authors' code; " + HAND),
    "STEP_GRPO": entry(
        "each turn's own reward, normalised among the same turns of the group", "2505.22095",
        "step-wise group normalisation", "A step is a turn by its number.", READING),
    "FLOW_GRPO": entry(
        "one outcome for every turn, each turn its own sample", "2510.05592", "the Flow-GRPO objective",
        "Statistics count each trajectory once and are unbiased (n - 1); counting rows would favour long "
        "trajectories. All turns learn: mark a frozen helper's turns void.", READING),
    "RAE": entry(
        "a running baseline for each role", "2506.24119", "role-conditioned advantage estimation",
        "The ledger's mean is read before the batch and moved after it, theirs moves with each game.",
        READING),
    "SPO_STREAM": entry(
        "the task's own past as baseline, deviation of the batch", "2509.13232", "single-stream estimator",
        "The tracker is a running mean of the ledger, theirs a Beta count with forgetting by KL.",
        "from a third party's code; " + LOOPS),
    "GRPO_ROC": entry(
        "among too many rollouts, successes with clean tool use", "2508.20722", "resample on correct",
        "Half of each group stays; sample twice as many members. The noise is keyed, so runs repeat.",
        READING),
    "D3S": entry(
        "the half of a group whose rewards differ most", "2509.22115",
        "sample-level down-sampling", "The token level is TopEntropy; add it in token_weight.", READING),
    "DIFFICULTY": entry(
        "groups neither too hard nor too easy", "2504.03380", "balanced online filtering",
        "Dropped groups are not replaced here.", READING),
    "ASPO": entry(
        "a bounded bonus for calling a tool early", "2508.19201", "advantage shaping",
        "Positions are turns, theirs tokens. 0.5 and 0.5 are placeholders.", READING),
    "XRPO": entry(
        "a bounded bonus for unlikely successes", "2510.06672", "the novelty term",
        "Without its allocation of rollouts and its solved examples in the prompt.", READING),
    "PIPO": entry(
        "the last batch once more, as far as the update on it improved the policy", "2604.00860",
        "equations 7 to 11, closed loop of the improvement",
        "The last batch is part of the next step, theirs has a step of its own; its groups of equal rewards "
        "are not kept; means of rewards that differ by less than 0.01 count as a plateau.",
        "notes that quote the paper; " + LOOPS),
    "FISSION_GRPO": entry(
        "recovery rollouts from a failure, compared with each other", "2601.15625",
        "the recovery group",
        "The diagnosis is the world's own reply to the failure, theirs a simulator's. Turns that a branch "
        "inherited carry no loss.", READING),
    "SPO_CHAIN": entry(
        "value differences between cut points, on uncertain tokens", "2505.23564",
        "AIFrameResearch/SPO, chain",
        "Cut points are spread evenly over the turns; values are means over all that pass, and the "
        "continuations are learnt from too.",
        "read from the authors' code; " + LOOPS),
    "ARPO": entry(
        "branches where the policy became less sure, each learnt with its own advantage", "2507.19849",
        "soft assignment",
        "Shared turns are read once, with the mean advantage of the branches that hold them, and weigh as "
        "many times: exact while ratios lie within the clip's window, outside it the clip acts on the mean. "
        "Without branches the gradient is GRPO's. Forks look at the tokens after the reply.",
        "read from the authors' code; equal to the branches learnt one by one on a true tree, within the "
        "clip's window"),
    "AEPO": entry(
        "credit grows with entropy, the clip keeps its gradient", "2510.14545", "the update side",
        "The trajectory that is looked at first stays in the group. The column entropy comes with branching "
        "rollouts.",
        "a secondary source; " + LOOPS),
    "SCALING_INTER": entry(
        "short rollouts first, longer ones later", "2509.08755", "ScalingInter-RL",
        "The gradient is GRPO's; the run takes the limit as the smaller of this and its own. 5, 8 and 10 "
        "turns are placeholders.", READING),
}  # fmt: skip
