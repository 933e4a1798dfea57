"""The command line: `agentrl --help`.

Exit codes: 0 done · 1 a check, a threshold or the rollouts failed · 2 the input needs mending · 3 a defect of
agentrl · 130 stopped by a signal.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from cyclopts import App, CoercionError, CycloptsError

from agentrl.errors import AgentrlError, CheckError, RolloutError, TemplateError, as_sentence
from agentrl.run.blame import culprit
from agentrl.run.commands import (
    doctor,
    environments,
    evaluation,
    export,
    recipes,
    serving,
    template,
    tools,
    training,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

FOUND_BAD = 1
BAD_INPUT = 2
DEFECT = 3
PIPE_CLOSED = 141
HELP = """Train and evaluate language-model agents over many turns.

Settings stand in TOML files; `section.name=value` after one overrides it. `--debug` anywhere shows the
traceback of an error.
"""


def _version() -> str:
    from importlib.metadata import version

    return version("agentrl")


app = App(
    name="agentrl",
    help=HELP,
    help_format="markdown",
    version=_version,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.command(training.train)
app.command(training.sft)
app.command(evaluation.evaluate, name="eval")
app.command(evaluation.compare)
app.command(training.report)
app.command(export.export)
app.command(environments.app)
app.command(tools.app)
app.command(recipes.app)
app.command(serving.serve)
app.command(template.check_template)
app.command(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    if os.getcwd() not in sys.path:  # noqa: PTH109  # sys.path holds texts
        sys.path.append(os.getcwd())  # noqa: PTH109  # "my_module:MyEnv" of the folder that the user stands in
    sys.exit(run([item for item in given if item != "--debug"], debug=debug))


def run(arguments: Sequence[str], *, debug: bool = False) -> int:
    """Run a command and return its exit code; an error becomes one sentence on standard error."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        print(f"error: {_of_the_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        # Nobody reads any more: flushing at the exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return training.INTERRUPTED
    except (Exception, SystemExit) as error:  # noqa: BLE001  # the outermost room: nobody is left to handle it
        if debug:
            traceback.print_exc()
        return _say(error, debug=debug)
    return code if isinstance(code, int) else 0


KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def _of_the_line(error: CycloptsError) -> str:
    """What is wrong with a command line, what was expected, and where the form is shown."""
    chain = error.command_chain or ()
    command = " ".join([app.name[0], *chain])
    token = error.token if isinstance(error, CoercionError) else None
    if isinstance(error, CoercionError) and token is not None and error.target_type in KINDS:
        name = token.keyword or (error.argument.name if error.argument else "the argument")
        said = f"{name} is {token.value!r}, and {KINDS[error.target_type]} is expected."
    else:
        said = as_sentence(str(error))
    return f"{said} `{command} --help` shows what it takes."


def _say(error: BaseException, *, debug: bool) -> int:
    if isinstance(error, AgentrlError):
        print(f"error: {error}", file=sys.stderr)
        return FOUND_BAD if isinstance(error, RolloutError | CheckError | TemplateError) else BAD_INPUT
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}. Mend that and run again.", file=sys.stderr)
        return BAD_INPUT
    said = as_sentence(f"{type(error).__name__}: {error}")
    if place := culprit(error):
        hint = "" if debug else " `--debug` shows the traceback."
        print(f"error: {place}, raised {said} Mend it there and run again.{hint}", file=sys.stderr)
        return BAD_INPUT
    hint = "" if debug else " Run again with --debug for the traceback, and report it."
    print(f"error: this is a defect of agentrl: {said}{hint}", file=sys.stderr)
    return DEFECT


if __name__ == "__main__":
    main()
