"""`agentrl check-template`."""

from __future__ import annotations

import importlib
from pathlib import Path

from agentrl.errors import MissingExtraError, PolicyError


def check_template(path: str, /) -> None:
    """Check that the chat template of a model only appends: training needs tokens that stay as they were.

    Args:
        path: a folder that holds a tokenizer, or a hub name.
    """
    try:
        importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtraError("Loading a tokenizer", "train") from error
    from agentrl.policy.load import load_tokenizer
    from agentrl.policy.render import check_prefix_stable, renderer_for
    from agentrl.run.players import looks_local

    if looks_local(path) and not Path(path).is_dir():
        raise PolicyError(f"there is no folder {path}. Give a folder that holds a tokenizer, or a hub name.")
    try:
        tokenizer = load_tokenizer(path)
    except (OSError, ValueError) as error:
        raise PolicyError(
            f"no tokenizer could be loaded from {path!r}: {str(error).splitlines()[0]} "
            "Give a folder that holds tokenizer.json and tokenizer_config.json."
        ) from error
    check_prefix_stable(renderer_for(tokenizer))
    if getattr(tokenizer, "chat_template", None):
        print(f"The chat template of {path} only appends: training sees the tokens that the model saw.")
    else:
        print(f"{path} has no chat template; turns are written in the append-only markup.")
