"""`recserve`: one command line over every part, and the one place that prints errors.

Each command lives in `serving/commands/` as a plain function and imports the
packages it needs inside, so that `recserve --help` is quick and `serve`,
`recommend` and `load` never see torch. Exit codes: 0, 1 for a failure, 2 for bad
usage, 130 for Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Annotated

import typer

from recommender.errors import BadInput, RecserveError
from serving.commands import adapt, ask, batch, data, export, load, machine, releases, training
from serving.commands import explain as explaining  # explain() below is of errors
from serving.commands import keys as access
from serving.commands import store as events
from serving.commands import tune as tuning
from serving.commands import tune_serving as tuning_serving
from serving.commands import variants as beside

SHORT_SPINS = ("GOMP_SPINCOUNT", "5000")

app = typer.Typer(
    name="recserve",
    help="From a data folder to recommendations served by Triton and BentoML.",
    epilog="Start here: recserve up        What does this machine lack: recserve doctor",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # as markup, "[default: 3000]" in a help text would vanish
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(machine.up)
app.command()(machine.doctor)
app.command()(data.init)
app.add_typer(data.data, name="data")
app.command()(training.train)
app.command()(adapt.adapt)
app.command()(training.evaluate)
app.command()(tuning.tune)
app.command()(batch.batch)
app.command()(explaining.explain)
app.command()(export.export)
app.add_typer(releases.releases, name="releases")
app.add_typer(beside.variants, name="variants")
app.command()(machine.serve)
app.add_typer(access.keys, name="keys")
app.command()(ask.recommend)
data.data.command()(events.from_store)
app.command()(events.backup)
app.command()(events.restore)
app.command()(events.click_through)
app.command()(load.load)
app.command()(tuning_serving.tune_serving)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"recserve {version('recserve')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line; every error becomes one line on stderr and an exit code."""
    # A script's shell starts background jobs with SIGINT ignored; ours can be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _spare_busy_cores()
    sys.exit(run(sys.argv[1:]))


def _spare_busy_cores() -> None:
    """Before torch is loaded, whose threads (GNU OpenMP) spin for milliseconds while they wait for
    each other: on cores that do something else, too, a training is then little but waiting
    (docs/quality.md). They sleep after microseconds instead. What the user has set stays."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*SHORT_SPINS)


def run(arguments: list[str]) -> int:
    try:
        code = app(arguments, prog_name="recserve", standalone_mode=False)
        sys.stdout.flush()  # a closed pipe shows here, and not in the interpreter's last breath
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone (`recserve ... | head`); give the exit-time flush a place to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("RECSERVE_DEBUG") == "1":
            raise
        first = next((a for a in arguments if not a.startswith("-")), "")
        line, code = explain(error, command=f"recserve {first}".strip())
        print(f"recserve: {' '.join(line.split())}", file=sys.stderr)
        return code


def explain(error: Exception, *, command: str = "recserve") -> tuple[str, int]:
    """What to tell the user about `error`, and the exit code."""
    match error:
        case BadInput():
            return str(error), 2
        case RecserveError():
            return str(error), 1
        case typer.TyperException():
            return _usage(error, command), error.exit_code
        case typer.Abort():
            return "aborted", 130
        case OSError() if error.errno in _FILE_REMEDIES:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            return f"{what}. {_FILE_REMEDIES[error.errno]}", 1
    return (
        f"unexpected {type(error).__name__}: {error}. "
        "This is a bug: run again with RECSERVE_DEBUG=1 and report what it prints.",
        1,
    )


_FILE_REMEDIES = {
    errno.ENOENT: "Check the path.",
    errno.ENOTDIR: "Check the path: a part of it is a file.",
    errno.EISDIR: "Name a file.",
    errno.EEXIST: "Name another path, or remove it.",
    errno.EACCES: "Ask for the right to it, or name another path.",
    errno.EPERM: "Ask for the right to it, or name another path.",
    errno.EROFS: "Name a path on a disk that can be written.",
    errno.ENOSPC: "Free some space, or name a path on another disk.",
    errno.EDQUOT: "Free some space, or name a path on another disk.",
    errno.ENOMEM: "Free some memory.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
}


def _usage(error: typer.TyperException, command: str) -> str:
    """Names the flag or argument at fault, and where its help is; not every error of the
    parser knows its command."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else command
    fault = error.format_message()
    if fault.startswith("Usage:"):  # a group named alone: its whole help, which is no line
        fault = "No command is named"
    return f"{fault.rstrip('.')}. See `{command} --help`."


if __name__ == "__main__":
    main()
