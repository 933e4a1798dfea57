"""Every paper of the survey this library was built against, and where its idea stands here.

`python -m agentrl.recipes.papers` prints `docs/papers.md`; a test says whether the page is current.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.recipes import ABOUT

if TYPE_CHECKING:
    from agentrl.recipes.about import About

# number | method | recipes | why outside, or what is left out
TABLE = """
1|StoSignSGD||optimizer: its noise is not in the abstract; Lion is here
2|Scaf-GRPO||hints in the prompt are the rollout's: an outline in tiers has to come with the tasks
3|RiskPO||needs bundles of tasks and running quantiles whose constants are not published in the abstract
4|POISE|POISE|its probe reads the policy as it was at the beginning, and no entropies
5|ETR|ETR|without the term of the group's variance
6|EMPO||needs an equivalence of free answers; a world may give cluster shares as its reward
7|CAPO (curvature)||needs gradients of single tokens
8|REAL|REAL|
9|Lion-K|GRPO_LION|theory of the optimizer
10|CAPO (calibration)||the noise mask is not in the abstract
11|DHPO|DHPO|average mixing only
12|HAPO||needs entropy windows of the sampler and several normalisers at once
13|BPO|BPO|
14|ProGRPO ARM||its formula is not in the abstract
15|CAPO (credit)||needs a judge of steps
16|D3S|D3S,TOP_ENTROPY|
17|MC-GRPO|MC_GRPO|
18|POAD|POAD|
19|PIPO|PIPO|one step for both batches
20|FATE||repairs proposed by the policy and scored on several goals
21|FAPO|FAPO|
22|ADORA||its weights are not in the abstract
23|GTPO|GTPO|
24|GRPO-VPS|IGPO|the same signal inside one answer; here between turns
25|CONSCIENTIA|KTO|the loss; red and blue teams are worlds
26|EXPO||unrelated: continuous control
27|Policy smoothing||an evaluation under disturbed observations
28|COPO||needs the entropy of answers over the batch
29|R2VPO|R2VPO|constant multiplier
30|RL-Struct||a reward of a world: add its components with Component
31|ARSPO||scales of several reward models for images
32|SSL||a reward of a world: progress in tiers
33|IPO (intervened)||needs a detector of unsafe steps
34|FiberPO|FIBER_PO|two levels
35|T-PPO, EGAE||training on unfinished rollouts: the run plays episodes to their end
36|VPPO||needs a forward pass with hidden observations
37|NFT|NFT|
38|VAS||Plan(sampler=Weighted(uncertain)), without diversity of texts
39|Lion|GRPO_LION|
40|PAPO||needs a forward pass with hidden observations
41|OTC|OTC|
42|BNPO|BETA_NORM|
43|GHPO||Plan(hint=WhenFailing()): the expert plays the first part where all failed
44|EARL|TOP_ENTROPY|
45|BRPO||cuts thinking at budgets: needs a forced answer at each
46|SofT-GRPO||soft tokens have no token likelihood
47|VerIPO||alternates two trainers
48|MinPRO|MIN_PRO|
49|B-Coder||learns values from logits
50|MDPO|MDPO|constant step size
51|ASPO|ASPO|
52|CaCoVID||unrelated: video tokens
53|FG-ExPO||Plan(sampler=Weighted(NearRate(0.5))); its KL by accuracy is not given
54|SRPO||distillation on a privileged prompt needs whole distributions
55|TRPA|TRPA|
56|CoPG|COPG|
57|DGPO (difficulty)|DGPO_DIFFICULTY|
58|WirelessMathLM||a domain study
59|Rubric hacking||a diagnosis of judges
60|POWER-DL||preference data without rollouts
61|RLUF||a reward model of users
62|Pitfalls of verifiers||advice for graders
63|MO-GRPO|GDPO_REWARDS|each reward by its own spread; weights are yours
64|DARS||Plan(allocator=Proportional(hard)), without its constants
65|open-rs||a study of small models
66|R1-AQA||audio; nothing to transfer
67|SSR||Plan(replay=Replay()), whole groups
68|ReST-RL||tree search at decoding
69|RRVF||a world with a renderer
70|Format and length||a reward of a world
71|Domains||a study; metrics by domain
72|GRIT||a reward of a world
73|AutoTriton||a reward of a world
74|Baichuan-M2||a simulated user
75|Prefix Grouper||speed without another number: the packed forward's
76|1-shot RLVR|GRPO_ENTROPY|a study; the entropy bonus
77|Thyme||temperature by role of the text: the sampler's
78|HICRA|HICRA|
79|MinD||supervised rewriting first
80|Unlikeliness|UNLIKELINESS|
81|DanceGRPO||diffusion
82|MM-UPT||a reward by majority: of a world with answers
83|DeepVideo-R1|REG_GRPO|
84|DUMP||a curriculum over sources: the ledger keeps tasks and roles, no sources
85|Small subnetworks||a study of what changes
86|Echo chamber||a study with small models
87|GRPO-R||needs hidden layers of the model
88|GVM||Plan(allocator=Proportional(Acceptance())), without norms of gradients
89|Survey||a survey
90|KAT-V1||two modes of answering in one pipeline
91|R1-Router|STEP_GRPO|
92|UI-R1||a reward of a world
93|Visual-RFT||a reward of a world
94|GUI-R1||a reward of a world
95|rStar2-Agent|GRPO_ROC|
96|GiGPO|GIGPO,GIGPO_BY_TRAJECTORY,GIGPO_OBSERVATION,GIGPO_REFUSED,GIGPO_SIMILAR,GIGPO_VERL_AGENT|
97|Action grouping||theory; it speaks for GIGPO_SIMILAR
98|ArCHer||needs an off-policy critic
99|NGRPO|NGRPO|
100|LATR||branches within an answer, at decoding
101|CaRL||a reward of a world
102|DynGroupNet||unrelated: sports
103|Survey RL||a survey
104|SSPO|SSPO|
105|80/20|TOP_ENTROPY|
106|ROVER|ROVER|
107|AutoVLA||driving; thinking only where needed
108|STEER|STEER|
109|MultiRole-R1||a reward over texts of the group
110|Lite PPO|LITE_PPO|
111|Online difficulty filter|DIFFICULTY|without refill
112|LLDS|LLDS|
113|ARPO|ARPO,ARPO_HARD|
114|ASearcher||a system for long searches
115|BroRL||hundreds of rollouts: a setting, rl.members
116|IGPO|IGPO,IGPO_JOINT|
117|UFO|UFO|
118|DRIVE||Plan(sampler=Weighted(hard)) in a second run
119|Micro Lie theory||unrelated
120|SALT|SALT|
121|CDSA||unrelated: control
122|RL-PLUS||demonstrations inside the batch
123|RAST||decoding with two models
124|SEELE||hints of fitted length: the rollout's
125|Does RL incentivise||a study; pass at k
126|Image generation||diffusion
127|SimpleTIR|SIMPLE_TIR|
128|OThink-MR1|GRPO_KL|write the coefficient as a schedule
129|LMRL-Gym||tasks and value-based baselines
130|MARS|MARS|
131|AMPO||traces of teachers inside the batch
132|Bifurcation attack||unrelated: power grids
133|DeepSearch||tree search in training
134|VerlTool||a server of tools
135|Subequivariant graphs||unrelated: locomotion
136|GAIN-RL||needs hidden states of the model
137|AgentGym-RL|SCALING_INTER|
138|FastRLAP||unrelated: cars
139|VLAA||a study
140|MOTIF|FLOW_GRPO|rounds are turns of new streams
141|AgentFlow|FLOW_GRPO|
142|BigCharts-R1||a reward of a world
143|OSPO||one-step episodes; GRPO does it
144|WorldRFT||unrelated: driving
145|REFUEL|REFUEL|
146|Syn-GRPO||makes tasks
147|TON||supervised data with thoughts left out
148|DisCO|DISCO|without the hinge on the KL
149|One-shot CFT||supervised critiques
150|Guide-GRPO||hints in the prompt are the rollout's
151|VideoChat-R1||several tasks; GRPO
152|SPIRAL|RAE|
153|S-GRPO||forced answers within one rollout
154|Balanced aggregation|BALANCED|
155|REFINE||an objective of pre-training
156|Rank-GRPO|TURN_PPO_RATIO|one ratio per unit, which is a turn here
157|ERPO||its gates are not in the abstract
158|Sparse to dense||a pipeline of distillation
159|CTPO|CTPO|
160|SAPO|SAPO|
161|Perceval||needs a checker of spans
162|IndexTTS||unrelated: speech
163|TEMPO|TEMPO|
164|Ada-GRPO|ADA_GRPO|
165|Co-GRPO||diffusion
166|Train long, think short||a schedule of token budgets in a reward of a world
167|SAGE||hints in the prompt are the rollout's
168|DiffuCoder||diffusion
169|VGPO||its absolute term: add Relative(center=nothing)
170|DynFrame|M_GRPO|roles in place of phases
171|F-GRPO|M_GRPO|roles in place of phases; one reward for each is the world's
172|Holder PO|HOLDER_PO|
173|MicroCoder||conditions on repetition are not in the abstract
174|SPO (segment)|SPO_TREE,SPO_CHAIN|
175|BranchGRPO|TREE_PO|means over subtrees; path weights are diffusion's
176|DualKV||speed without another number: the packed forward's
177|GDPO (diffusion)||diffusion
178|TraceLock||unrelated: decoding of diffusion models
179|JustGRPO||diffusion; GRPO
180|TokenRing||speed over several GPUs
181|XRPO|XRPO|the novelty term only
182|Stable RL|GRPO_LAMBDA|
183|SFT-GRPO overlap||advice on data
184|TempFlow-GRPO||diffusion; its branches are the rollout's
185|ATLAS|HICRA|weight on tokens of a role: PlanTokens("tool_call")
186|GenRec||recommendation logs
187|SAGE-GRPO (video)|GRPO_KL,MDPO|a reference that moves is the run's
188|Insertion LM||unrelated: another architecture
189|DenseGRPO|IGPO|a preview of the answer after each turn
190|SPO (single stream)|SPO_STREAM|
191|TW-GRPO||needs the group's distributions at one position
192|DCPO|DCPO|without smoothed advantages
193|1D tokens||unrelated: images
194|GRAO||reference answers inside the batch
195|Graph models||unrelated
196|Fission-GRPO|FISSION_GRPO|
197|FlexTok||unrelated: images
198|M-GRPO|M_GRPO|
199|UniRef||images; several reward models
200|DGPO (distribution)||needs the reference's whole distribution
201|TreePO|TREE_PO|
202|Pref-GRPO||a reward by pairwise judge
203|ExPO||explanations of the gold answer inside the batch
"""


@dataclass(frozen=True)
class Paper:
    """One paper: its number in the survey, its method, our recipes, and what is outside."""

    number: int
    method: str
    recipes: tuple[str, ...]
    outside: str


def papers() -> tuple[Paper, ...]:
    """Return all papers in order.

    >>> papers()[95].recipes[0]
    'GIGPO'
    """
    rows = [line.split("|") for line in TABLE.strip().splitlines()]
    return tuple(
        Paper(int(number), method, tuple(name for name in recipes.split(",") if name), outside)
        for number, method, recipes, outside in rows
    )


def page() -> str:
    """Return `docs/papers.md`."""
    found = papers()
    held = sum(bool(paper.recipes) for paper in found)
    lines = [
        "# Papers and recipes",
        "",
        "Written by `python -m agentrl.recipes.papers > docs/papers.md` from `agentrl.recipes.ABOUT` and the",
        "table in `agentrl/recipes/papers.py`; edit those. Every recipe agrees with a second implementation",
        "in loops within 1e-6, loss and gradient (`tests/parity`); the last column says what else there was.",
        "",
        f"## The {len(ABOUT)} recipes",
        "",
        "| recipe | what | paper | equations | departures | checked |",
        "|---|---|---|---|---|---|",
        *(_recipe(name, about) for name, about in ABOUT.items()),
        "",
        f"## The {len(found)} papers of the survey",
        "",
        f"{held} of them have a recipe. Of the others it says why not, or which part of a run has the idea.",
        "",
        "| | method | recipe | what is left out, or why it is outside |",
        "|---|---|---|---|",
        *(f"| {p.number} | {p.method} | {_code(p.recipes)} | {p.outside} |" for p in found),
        "",
    ]
    return "\n".join(lines)


def _recipe(name: str, about: About) -> str:
    paper = re.sub(r"^(\d{4}\.\d{5})$", r"[\1](https://arxiv.org/abs/\1)", about.paper)
    cells = (f"`{name}`", about.title, paper, about.equations, about.departures.strip(), about.checked)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201  # this is a command
