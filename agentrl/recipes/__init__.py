"""Papers as values. `get("gigpo")` finds one by name; `ABOUT` says what each one is and where we depart.

A new method is one `replace(...)`; your own lives in your module and is named `"my_module:MINE"`.
"""

from __future__ import annotations

from agentrl.credit.part import load
from agentrl.errors import ConfigError, did_you_mean
from agentrl.learn.algorithm import Algorithm
from agentrl.recipes import agents, base, credit, losses, objectives
from agentrl.recipes.about import About, complete
from agentrl.recipes.agents import (
    ADA_GRPO,
    AEPO,
    ARPO,
    ASPO,
    D3S,
    DIFFICULTY,
    FAPO,
    FISSION_GRPO,
    FLOW_GRPO,
    GRPO_LAMBDA,
    GRPO_ROC,
    OTC,
    PIPO,
    RAE,
    SCALING_INTER,
    SPO_CHAIN,
    SPO_STREAM,
    STEP_GRPO,
    UFO,
    UNLIKELINESS,
    XRPO,
)
from agentrl.recipes.base import (
    CISPO,
    DAPO,
    DR_GRPO,
    GIGPO,
    GIGPO_BY_TRAJECTORY,
    GIGPO_OBSERVATION,
    GIGPO_REFUSED,
    GIGPO_VERL_AGENT,
    GRPO,
    GSPO,
    REINFORCE,
    RLOO,
    SIMPLE_TIR,
    TURN_PPO_RATIO,
)
from agentrl.recipes.credit import (
    ARPO_HARD,
    BETA_NORM,
    BI_LEVEL_GAE,
    CENTERED,
    DGPO_DIFFICULTY,
    GDPO_REWARDS,
    GIGPO_SIMILAR,
    HGPO,
    IGPO,
    IGPO_JOINT,
    LITE_PPO,
    M_GRPO,
    MARS,
    MAX_RL,
    MC_GRPO,
    MT_GRPO,
    NGRPO,
    POAD,
    POISE,
    REINFORCE_PP,
    REINFORCE_PP_BASELINE,
    SALT,
    SPO_TREE,
    TEMPO,
    TREE_GRPO,
    TREE_PO,
    TURN_PPO,
)
from agentrl.recipes.losses import (
    BALANCED,
    BPO,
    CTPO,
    DCPO,
    DHPO,
    ENTROPY_TARGET,
    ETR,
    FIBER_PO,
    GIGPO_SAPO,
    GROUP_MEAN,
    GRPO_ENTROPY,
    GRPO_KL,
    GRPO_KL2,
    GTPO,
    HICRA,
    HOLDER_PO,
    LLDS,
    LUSPO,
    MDPO,
    MIN_PRO,
    R2VPO,
    SAPO,
    SSPO,
    STEER,
    TASK_MEAN,
    TOP_ENTROPY,
    VESPO,
)
from agentrl.recipes.objectives import (
    COPG,
    DISCO,
    GRPO_LION,
    KTO,
    NFT,
    REAL,
    REFUEL,
    REG_GRPO,
    ROVER,
    TRPA,
)

__all__ = [
    "ABOUT",
    "ADA_GRPO",
    "AEPO",
    "ARPO",
    "ARPO_HARD",
    "ASPO",
    "BALANCED",
    "BETA_NORM",
    "BI_LEVEL_GAE",
    "BPO",
    "CENTERED",
    "CISPO",
    "COPG",
    "CTPO",
    "D3S",
    "DAPO",
    "DCPO",
    "DGPO_DIFFICULTY",
    "DHPO",
    "DIFFICULTY",
    "DISCO",
    "DR_GRPO",
    "ENTROPY_TARGET",
    "ETR",
    "FAPO",
    "FIBER_PO",
    "FISSION_GRPO",
    "FLOW_GRPO",
    "GDPO_REWARDS",
    "GIGPO",
    "GIGPO_BY_TRAJECTORY",
    "GIGPO_OBSERVATION",
    "GIGPO_REFUSED",
    "GIGPO_SAPO",
    "GIGPO_SIMILAR",
    "GIGPO_VERL_AGENT",
    "GROUP_MEAN",
    "GRPO",
    "GRPO_ENTROPY",
    "GRPO_KL",
    "GRPO_KL2",
    "GRPO_LAMBDA",
    "GRPO_LION",
    "GRPO_ROC",
    "GSPO",
    "GTPO",
    "HGPO",
    "HICRA",
    "HOLDER_PO",
    "IGPO",
    "IGPO_JOINT",
    "KTO",
    "LITE_PPO",
    "LLDS",
    "LUSPO",
    "MARS",
    "MAX_RL",
    "MC_GRPO",
    "MDPO",
    "MIN_PRO",
    "MT_GRPO",
    "M_GRPO",
    "NFT",
    "NGRPO",
    "OTC",
    "PIPO",
    "POAD",
    "POISE",
    "R2VPO",
    "RAE",
    "REAL",
    "REFUEL",
    "REG_GRPO",
    "REINFORCE",
    "REINFORCE_PP",
    "REINFORCE_PP_BASELINE",
    "RLOO",
    "ROVER",
    "SALT",
    "SAPO",
    "SCALING_INTER",
    "SIMPLE_TIR",
    "SPO_CHAIN",
    "SPO_STREAM",
    "SPO_TREE",
    "SSPO",
    "STEER",
    "STEP_GRPO",
    "TASK_MEAN",
    "TEMPO",
    "TOP_ENTROPY",
    "TREE_GRPO",
    "TREE_PO",
    "TRPA",
    "TURN_PPO",
    "TURN_PPO_RATIO",
    "UFO",
    "UNLIKELINESS",
    "VESPO",
    "XRPO",
    "About",
    "get",
    "names",
]

_TOLD = {**base.ABOUT, **credit.ABOUT, **losses.ABOUT, **agents.ABOUT, **objectives.ABOUT}
ABOUT = {name: complete(about, globals()[name]) for name, about in _TOLD.items()}


def names() -> tuple[str, ...]:
    """Return the names of all recipes."""
    return tuple(ABOUT)


def get(name: str) -> Algorithm:
    """Return a recipe by name, or the algorithm at a dotted path `"module:NAME"`.

    Raises:
        ConfigError: no such recipe, or the path leads to something else.

    >>> get("gigpo") is GIGPO
    True
    """
    given: object = name
    if not isinstance(given, str):
        raise ConfigError(f"a recipe is named by a text such as 'gigpo' or 'my_module:MINE'; got {given!r}.")
    if ":" in name:
        found = load(name)
        if not isinstance(found, Algorithm):
            raise ConfigError(f"{name!r} is {type(found).__name__}, not an agentrl Algorithm.")
        return found
    key = name.upper().replace("-", "_")
    if key not in ABOUT:
        raise ConfigError(
            f"there is no recipe {name!r}.{did_you_mean(key, ABOUT)} Known: {', '.join(ABOUT)}."
        )
    algorithm: Algorithm = globals()[key]
    return algorithm
