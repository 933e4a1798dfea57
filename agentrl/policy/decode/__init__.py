"""In-process decoding for multi-turn rollouts: a turn costs only its new tokens.

`make_engine` looks at a model and answers with the fastest engine that provably agrees with it:
our own loop, the transformers cache, or re-reading the history. This package imports torch.
"""

from agentrl.policy.decode.choose import make_engine
from agentrl.policy.decode.engine import Backend, Chunks, DecodeEngine, Engine
from agentrl.policy.decode.fused import FusedBackend
from agentrl.policy.decode.reread import RereadBackend
from agentrl.policy.decode.sampling import Decoded, DecodeRequest
from agentrl.policy.decode.transformers_cache import TransformersCacheBackend

__all__ = [
    "Backend",
    "Chunks",
    "DecodeEngine",
    "DecodeRequest",
    "Decoded",
    "Engine",
    "FusedBackend",
    "RereadBackend",
    "TransformersCacheBackend",
    "make_engine",
]
