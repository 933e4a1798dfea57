"""A small Qwen2-architecture model and a tokenizer trained on a world's own text, both made on the spot.

Source of the choices: measured on CPU; the library's default initialisation (std 0.02) is far too small for
hidden sizes up to 256, and a name such as "sinkbasin 1" as one token turns copying into a one-token pointer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MARKUP_TOKENS = ("<|pad|>", "<|act|>", "<|end|>")

NAME_PATTERN = r" ?[a-z]+ [0-9]+"
"""An instance name such as " sinkbasin 1"."""

WORD_PATTERN = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"
"""The usual split of byte-level BPE."""

NUMBER_PATTERN = r"\p{{N}}{{1,{digits}}}"
"""Some digits without the space before them, so that a number has the same tokens wherever it stands."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The size of a Qwen2-architecture model built from a config."""

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 384
    context: int = 1024
    rope_theta: float = 10000.0
    tied: bool = True


def train_tokenizer(
    texts: Sequence[str],
    *,
    vocabulary: int = 1024,
    names: bool = True,
    phrase_share: float = 0.001,
    number_digits: int = 0,
    bare_words: bool = False,
) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer on `texts` with the tokens of the append-only markup.

    Args:
        vocabulary: most entries; BPE stops earlier when nothing is left to merge.
        names: keep instance names ("mug 2") whole, so that copying one is a single token.
        phrase_share: what stands between names on a line stays whole where it makes up at least this share
            of all such segments; 1 splits every phrase into words.
        number_digits: cut numbers outside of names and phrases into pieces of at most so many digits, each
            one token, without their space: a number then has the same tokens in a sentence and in a program.
            With 1 it is copied digit by digit, with 2 a number below 100 is one token. 0 treats numbers as
            words.
        bare_words: cut words without the space before them too: a name then has the same tokens in a
            question and in quotes, at the price of a token for each space.

    Raises:
        MissingExtraError: tokenizers or transformers is not installed.
    """
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtraError("Training a tokenizer", "train") from error
    whole = [re.escape(phrase) for phrase in frequent_phrases(texts, phrase_share)]
    numbers = [NUMBER_PATTERN.format(digits=number_digits)] if number_digits else []
    words = WORD_PATTERN.replace(r"| ?\p{N}+", "") if number_digits else WORD_PATTERN
    words = words.replace(r" ?\p{L}+", r"\p{L}+") if bare_words else words
    pattern = "|".join([*([NAME_PATTERN] if names else []), *whole, *numbers, words])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(MARKUP_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = [f"{number:0{number_digits}d}" for number in range(10**number_digits if number_digits else 0)]
    tokenizer.train_from_iterator([*texts, *pieces], trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|act|>"],
    )


def frequent_phrases(texts: Sequence[str], share: float) -> list[str]:
    """Return the segments of several words between names that are at least `share` of all.

    Longest first, so that an alternation of them prefers the longest match.

    >>> frequent_phrases(["You open the door 1. The door 1 is open."], 0.1)
    ['You open the', ' is open.', '. The']
    """
    counts = Counter(piece for text in texts for piece in re.split(_CUT, text) if piece)
    least = share * counts.total()
    found = [piece for piece, count in counts.items() if count >= least and " " in piece.strip()]
    return sorted(found, key=lambda piece: (-len(piece), piece))


_CUT = re.compile(NAME_PATTERN + r"|\n")


def build_model(tokenizer: PreTrainedTokenizerBase, shape: ModelShape, *, seed: int) -> PreTrainedModel:
    """Build a Qwen2-architecture model for `tokenizer`, initialised for training from scratch.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM
    except ImportError as error:
        raise MissingExtraError("Building a model", "train") from error
    config = Qwen2Config(
        vocab_size=math.ceil(len(tokenizer) / 8) * 8,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        pad_token_id=_id_of(tokenizer.pad_token_id),
        eos_token_id=_id_of(tokenizer.eos_token_id),
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    initialize(model, torch.Generator().manual_seed(seed))
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return model


def _id_of(token: object) -> int | None:
    return token if isinstance(token, int) else None


def initialize(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Initialise each weight: embeddings 0.05, matrices 1/sqrt(fan in), residual outputs also sqrt(2 L)."""
    import torch

    layers = int(model.config.num_hidden_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if "norm" in name else 0.0)
            elif "embed" in name or "lm_head" in name:
                parameter.normal_(0.0, 0.05, generator=generator)
            else:
                residual = (
                    math.sqrt(2 * layers) if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                )
                parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]) / residual, generator=generator)
