"""`recserve doctor`, `serve` and `up`: this machine, and everything running on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from serving.doctor import Check

HttpPort = Annotated[int, typer.Option(min=1, max=65535, help="Triton's HTTP port.")]
GrpcPort = Annotated[int, typer.Option(min=1, max=65535, help="Triton's gRPC port.")]
MetricsPort = Annotated[int, typer.Option(min=1, max=65535, help="Triton's metrics port.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="BentoML's port.")]
Host = Annotated[str, typer.Option(help="Address BentoML binds. Triton always stays on 127.0.0.1.")]
Repository = Annotated[Path, typer.Option(help="The model repository.")]
LogDir = Annotated[
    Path | None, typer.Option(help="Logs of both servers [default: ./.recserve/PORT].")
]

Keys = Annotated[
    Path | None,
    typer.Option(
        envvar="RECSERVE_KEYS",
        metavar="FILE",
        help="API keys, made by `recserve keys add`; without it nobody needs one.",
    ),
]
Store = Annotated[
    str,
    typer.Option(
        envvar="RECSERVE_STORE",
        metavar="URL",
        help="Where events are kept: sqlite:///path or redis://host:port/db; empty: nowhere.",
    ),
]
TlsCert = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Certificate of BentoML, PEM: it speaks TLS.")
]
TlsKey = Annotated[Path | None, typer.Option(metavar="FILE", help="Key of the certificate, PEM.")]

MOVIELENS = Path("data/ml-100k")
FIRST_USER = "196"  # the first row of MovieLens-100K
# Of MovieLens, whose ids say nothing of anybody; those of other data are never shown unasked.
EXAMPLE_USERS = (FIRST_USER, "22", "405")


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON object per check.")] = False,
    http_port: HttpPort = 8000,
    grpc_port: GrpcPort = 8001,
    metrics_port: MetricsPort = 8002,
    port: Port = 3000,
    host: Host = "127.0.0.1",
) -> None:
    """Say what this machine lacks, with the remedy. Exit code 1 if something needed is missing.

    Example: recserve doctor --port 3100
    """
    from serving import doctor as checks

    triton = {"--http-port": http_port, "--grpc-port": grpc_port, "--metrics-port": metrics_port}
    found = [
        *checks.machine(),
        *checks.installed(),
        *checks.ports(triton),
        *checks.ports({"--port": port}, host),
        checks.gpu(),
    ]
    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps([asdict(check) for check in found], indent=2))
    else:
        _print_checks(found)
    if any(check.state == checks.LACKS for check in found):
        raise typer.Exit(1)


def _print_checks(found: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    seen, remedy = Column("seen", overflow="fold"), Column("remedy", overflow="fold")
    table = Table("", "check", seen, remedy, box=None, pad_edge=False)
    colours = {"ok": "green", "warns": "yellow", "lacks": "red"}
    for check in found:
        state = f"[{colours[check.state]}]{check.state}[/]"
        table.add_row(state, check.name, check.seen, check.remedy)
    Console().print(table)


def serve(
    repository: Repository = Path("model_repository"),
    http_port: HttpPort = 8000,
    grpc_port: GrpcPort = 8001,
    metrics_port: MetricsPort = 8002,
    port: Port = 3000,
    host: Host = "127.0.0.1",
    log_dir: LogDir = None,
    store: Store = "sqlite:///.recserve/events.db",
    keys: Keys = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Start tritonserver and BentoML, wait until both answer, stop both on Ctrl-C.

    Example: recserve serve --repository model_repository --port 3000
    """
    from serving import stack
    from serving.front import Front, Tls
    from serving.tritonserver import Ports

    ports = Ports(http=http_port, grpc=grpc_port, metrics=metrics_port)
    front = Front(host=host, port=port, tls=Tls.of(tls_cert, tls_key), keys=keys, store=store)
    raise typer.Exit(stack.serve(repository, front=front, ports=ports, log_dir=log_dir))


def up(
    data: Annotated[Path, typer.Option(help="Data folder; MovieLens-100K if absent.")] = MOVIELENS,
    run: Annotated[Path, typer.Option(help="Run folder; trained (quick preset) if absent.")] = Path(
        "runs/ml-100k"
    ),
    repository: Repository = Path("model_repository"),
    http_port: HttpPort = 8000,
    grpc_port: GrpcPort = 8001,
    metrics_port: MetricsPort = 8002,
    port: Port = 3000,
    host: Host = "127.0.0.1",
    log_dir: LogDir = None,
    store: Store = "sqlite:///.recserve/events.db",
) -> None:
    """Everything: data, train, export, serve; steps whose result is there are skipped.

    Example: recserve up --port 3100
    """
    from recommender.errors import Denied
    from serving import stack
    from serving.front import Front
    from serving.tritonserver import Ports

    ports = Ports(http=http_port, grpc=grpc_port, metrics=metrics_port)
    examples = EXAMPLE_USERS if data == MOVIELENS else ()
    front = Front(host=host, port=port, store=store, example_users=examples)
    stack.check_machine(front, ports)  # before minutes of training, not after
    _prepare(data, run, repository)

    def show_first() -> None:
        from serving.commands import ask

        url = front.url
        try:
            ask.show(ask.ask(url, FIRST_USER, 10, []), FIRST_USER)
        except Denied as error:  # RECSERVE_KEYS is set, and RECSERVE_KEY is not
            typer.echo(str(error))
        typer.echo(f"\nAsk for more: recserve recommend --user 42 --url {url}")
        typer.echo(f"The page: {url} (API: {url}/docs.json). Ctrl-C stops everything.")

    code = stack.serve(repository, front=front, ports=ports, log_dir=log_dir, on_ready=show_first)
    raise typer.Exit(code)


def _prepare(data: Path, run: Path, repository: Path) -> None:
    """Bring data, run and release, each by its own command in a process of its own, so that
    the one that serves never holds torch."""
    from recommender.release import INDEX

    if not all(any(data.glob(f"{part}.*")) for part in ("interactions", "items")):
        _step("data", ["data", "ml-100k", "--out", str(data)])
    else:
        typer.echo(f"data: {data} is there")
    if not (run / "run.json").is_file():
        resume = ["--resume"] if run.exists() else []  # an interrupted run goes on
        _step("train", ["train", str(data), "--out", str(run), "--preset", "quick", *resume])
    else:
        typer.echo(f"train: {run} is there")
    if not (repository / INDEX).is_file():
        _step("export", ["export", str(run), "--repository", str(repository)])
    else:
        typer.echo(f"export: {repository} holds a release")


def _step(name: str, arguments: list[str]) -> None:
    from serving import processes

    typer.echo(f"{name}: recserve {' '.join(arguments)}")
    try:
        with processes.supervised():
            code = processes.spawn([sys.executable, "-P", "-m", "serving.cli", *arguments]).wait()
    except processes.Stopped as stopped:
        raise typer.Exit(128 + stopped.signum) from None
    if code != 0:
        raise typer.Exit(code)  # it has said why
