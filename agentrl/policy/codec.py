"""Text and tokens of one tokenizer, piece by piece; what stands inside of a stream is coded as such."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

import numpy as np

from agentrl.world.parsing import ROLE_TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from transformers import PreTrainedTokenizerBase

    from agentrl.trajectory import IntArray

    Encode: TypeAlias = Callable[[PreTrainedTokenizerBase, str], tuple[int, ...]]

MASK: Final = "\ue000"
"""A private character that keeps a special token in somebody's text from being one."""

_ANCHORS: Final = ("\n", ".", "a")
"""A piece that stands in the middle is coded after the first of these that does not merge with it."""


def ids(tokens: Sequence[int]) -> IntArray:
    """Return tokens as an array."""
    return np.asarray(tokens, dtype=np.int32)


@functools.lru_cache(maxsize=1 << 16)
def encode_plain(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return a text as tokens; special tokens written in it stay text.

    Text worlds repeat themselves: most observations of a run are found here.
    """
    found = _unmarked(tokenizer).search(text)
    if found is None:
        return tuple(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
    # The tokenizer splits only what it calls special; cut inside of it, the token is text, too.
    cut = found.start() + 1
    rest = encode_inside(tokenizer, text[cut:], encode_plain)
    return (*encode_plain(tokenizer, text[:cut]), *rest)


@functools.lru_cache(maxsize=1 << 16)
def encode_marked(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return a template's text as tokens, its special tokens as such."""
    return tuple(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False))


@functools.lru_cache(maxsize=256)
def encode_whole(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return a rendering from its beginning as tokens: the members of a group share theirs."""
    if MASK in text:
        return encode_masked(tokenizer, text)
    return tuple(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False))


@functools.lru_cache(maxsize=1 << 16)
def decode(tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, ...]) -> str:
    """Return tokens as text, without special tokens."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


@functools.lru_cache(maxsize=1 << 14)
def decode_all(tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, ...]) -> str:
    """Return tokens as text, special tokens as they are written."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def decode_inside(tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, ...]) -> str:
    """Return what tokens add to a text before them: decoders strip the blank that begins a text."""
    anchor = encode_plain(tokenizer, "a")
    before, text = decode_all(tokenizer, anchor), decode_all(tokenizer, anchor + tokens)
    return text[len(before) :] if text.startswith(before) else decode_all(tokenizer, tokens)


def encode_inside(tokenizer: PreTrainedTokenizerBase, text: str, encode: Encode) -> tuple[int, ...]:
    """Return a text as it is coded in the middle of another, without the blank that begins a text."""
    if not text or not _begins_with_blank(tokenizer):
        return encode(tokenizer, text)
    for anchor in _ANCHORS:
        before, whole = encode(tokenizer, anchor), encode(tokenizer, anchor + text)
        if whole[: len(before)] == before:
            return whole[len(before) :]
    return encode(tokenizer, text)


@functools.lru_cache(maxsize=64)
def _begins_with_blank(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a blank before a text."""
    alone, inside = encode_plain(tokenizer, "x"), encode_plain(tokenizer, "\nx")
    return inside[-len(alone) :] != alone


@functools.lru_cache(maxsize=64)
def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the special tokens by their text, and those of a role that a tokenizer does not call special.

    DeepSeek's vocabulary has such. The result is shared: do not change it.
    """
    added = tokenizer.added_tokens_decoder
    return {
        token.content: number
        for number, token in added.items()
        if token.content and (token.special or ROLE_TOKEN.fullmatch(token.content))
    }


@functools.lru_cache(maxsize=64)
def _unmarked(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Return what finds the tokens of a role that the tokenizer does not call special."""
    added = tokenizer.added_tokens_decoder.values()
    names = [token.content for token in added if not token.special and ROLE_TOKEN.fullmatch(token.content)]
    return re.compile("|".join(map(re.escape, names)) or "(?!)")


@functools.lru_cache(maxsize=64)
def special_pattern(tokenizer: PreTrainedTokenizerBase, but: tuple[str, ...] = ()) -> re.Pattern[str]:
    """Return what finds special tokens in a text, the longest first, save those in `but`."""
    wanted = sorted((token for token in special_ids(tokenizer) if token not in but), key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, wanted)) + ")") if wanted else re.compile("(?!)")


def mask(tokenizer: PreTrainedTokenizerBase, text: str, but: tuple[str, ...] = ()) -> str:
    """Return a text whose special tokens, save those in `but`, are none any more; see `encode_masked`."""
    return special_pattern(tokenizer, but).sub(lambda match: match[0][0] + MASK + match[0][1:], text)


def encode_masked(tokenizer: PreTrainedTokenizerBase, text: str, *, inside: bool = False) -> tuple[int, ...]:
    """Return a text with masked special tokens: those that are not masked as such, the others as text.

    Args:
        inside: whether the text stands in the middle of a stream.
    """
    known, added = special_ids(tokenizer), tokenizer.added_tokens_decoder
    tokens: list[int] = []
    pieces = special_pattern(tokenizer).split(text)
    for place, piece in enumerate(pieces):
        if piece in known:
            tokens.append(known[piece])
            continue
        plain = piece.replace(MASK, "")
        if place and added[known[pieces[place - 1]]].rstrip:
            plain = plain.lstrip()
        if place + 1 < len(pieces) and added[known[pieces[place + 1]]].lstrip:
            plain = plain.rstrip()
        if inside if place == 0 else not _blank_after_special(tokenizer):
            tokens += encode_inside(tokenizer, plain, encode_plain)
        elif plain:
            tokens += encode_plain(tokenizer, plain)
    return tuple(tokens)


def encode_tail(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return the rest of a rendering as tokens, as it stands in the middle of a stream."""
    if MASK in text:
        return encode_masked(tokenizer, text, inside=True)
    if special_pattern(tokenizer).match(text):
        return encode_marked(tokenizer, text)
    return encode_inside(tokenizer, text, encode_marked)


@functools.lru_cache(maxsize=64)
def _blank_after_special(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether text after a special token is coded as text that begins."""
    special = next(iter(special_ids(tokenizer)), None)
    if special is None:
        return True
    return encode_marked(tokenizer, f"{special}x")[1:] == encode_plain(tokenizer, "x")
