"""Loading and saving real models: any folder in the hub's format, or a hub name."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.errors import MissingExtraError, PolicyError, as_sentence
from agentrl.policy.render import Markup

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agentrl.policy.render import Renderer


TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""One of these is a tokenizer."""


def load_model(
    path: str,
    renderer: str = "auto",
    *,
    variables: Mapping[str, object] | None = None,
    dtype: str = "float32",
) -> tuple[PreTrainedModel, Renderer]:
    """Load a causal model and its tokenizer as a model in evaluation mode and a renderer.

    Args:
        path: a folder in the hub's format, or a hub name (downloaded by transformers, which needs a network).
        renderer, variables: see `renderer_for`.

    Raises:
        PolicyError: nothing loadable is there.
        TemplateError: the chat template cannot be used.
        MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise MissingExtraError("Loading a model", "train") from error
    _quiet()
    tokenizer = read_tokenizer(path)
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    except (OSError, ValueError) as error:
        kind = "folder" if Path(path).exists() else "folder or hub name"
        raise PolicyError(
            f"no model could be loaded from the {kind} {path!r}: {_first(error)} "
            "Give a folder that holds config.json, weights and a tokenizer."
        ) from error
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return model, renderer_for(tokenizer, kind=renderer, variables=variables)


def renderer_for(
    tokenizer: PreTrainedTokenizerBase, *, kind: str = "auto", variables: Mapping[str, object] | None = None
) -> Renderer:
    """Return the tokenizer's chat template as a renderer where it has one, the append-only markup otherwise.

    Args:
        kind: "auto"; "template"; "append", the template without its rewriting of history; or "markup".
        variables: what else the template reads, such as {"enable_thinking": False}.

    Raises:
        TemplateError: the template cannot be used, or the markup's tokens are missing.
    """
    from agentrl.policy.template import ChatTemplate

    if kind in {"template", "append"} or (kind == "auto" and getattr(tokenizer, "chat_template", None)):
        written = json.dumps(dict(variables or {}), sort_keys=True)
        renderer = ChatTemplate(tokenizer, written, append=kind == "append")
        _ = renderer.stop_tokens  # what is wrong with the template is told now
        return renderer
    return Markup(tokenizer)


def load_renderer(
    path: str,
    kind: str = "auto",
    *,
    variables: Mapping[str, object] | None = None,
    offline: bool = False,
) -> Renderer:
    """Load the tokenizer of a model as a renderer, without its weights.

    Args:
        kind, variables: see `renderer_for`.
        offline: take a hub name from the hub's cache on this machine only.

    Raises:
        PolicyError: no tokenizer is there.
        TemplateError: the chat template cannot be used.
        MissingExtraError: transformers is not installed.
    """
    return renderer_for(read_tokenizer(path, offline=offline), kind=kind, variables=variables)


def read_tokenizer(path: str, *, offline: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or hub name; see `load_renderer`.

    Raises:
        PolicyError: a sentence that says what is missing there.
        MissingExtraError: transformers is not installed.
    """
    try:
        importlib.import_module("transformers")  # named before anything is looked for
    except ImportError as error:
        raise MissingExtraError("Loading a tokenizer", "train") from error
    folder = Path(path).expanduser()
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        held = ", ".join(sorted(item.name for item in folder.iterdir())[:8]) or "nothing"
        raise PolicyError(
            f"there is no tokenizer in {path}: it holds {held}. Give a folder that holds tokenizer.json and "
            "tokenizer_config.json, as save_pretrained writes them."
        )
    try:
        return load_tokenizer(str(folder) if folder.is_dir() else path, offline=offline)
    except Exception as error:  # tokenizers raises Exception itself, and transformers whatever it meets
        if not folder.is_dir():
            where = "in the cache of the hub on this machine" if offline else "on the hub"
            raise PolicyError(
                f"no tokenizer could be loaded: there is no folder {path}, nor a tokenizer of that name "
                f"{where}. Give a folder that holds tokenizer.json and tokenizer_config.json."
            ) from error
        raise PolicyError(
            f"the tokenizer in {path} cannot be read: {_first(error)} Save it again with save_pretrained."
        ) from error


def _first(error: Exception) -> str:
    """The first line of what a library says, as a sentence."""
    return as_sentence(next(iter(str(error).splitlines()), type(error).__name__))


def load_tokenizer(path: str, *, offline: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer exactly as it was saved.

    `AutoTokenizer` puts the model family's own rules for splitting text in place of a tokenizer's, where the
    family is on its list, as Qwen2 is; a tokenizer that says it is of no family is read from its own file.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    config: object = get_tokenizer_config(path, local_files_only=offline)
    if not isinstance(config, Mapping):
        raise ValueError(f"tokenizer_config.json holds a {type(config).__name__} and no table")  # noqa: TRY004  # as transformers' own
    declared = config.get("tokenizer_class")
    generic = declared in {"TokenizersBackend", "PreTrainedTokenizerFast"}
    kind = PreTrainedTokenizerFast if generic else AutoTokenizer
    return kind.from_pretrained(path, local_files_only=offline)


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put the weights that `save_model` wrote to `folder` into a model of the same shape, bit for bit.

    Raises:
        PolicyError: no such weights are there, or they belong to a model of another shape.
    """
    from transformers import AutoModelForCausalLM

    _quiet()
    try:
        saved = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype)
        model.load_state_dict(saved.state_dict())
    except (OSError, ValueError, RuntimeError) as error:
        raise PolicyError(
            f"the weights in {folder} do not fit the model: {_first(error)} "
            "Resume with the settings the run was started with."
        ) from error


def save_model(model: PreTrainedModel, renderer: Renderer, folder: Path) -> None:
    """Save model and tokenizer in the hub's format (safetensors)."""
    folder.mkdir(parents=True, exist_ok=True)
    _quiet()
    model.save_pretrained(folder)
    tokenizer = getattr(renderer, "tokenizer", None)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _quiet() -> None:
    """Keep transformers' progress bars for single small files off the terminal."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
