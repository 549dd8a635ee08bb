"""Decide over HTTP: the service, and the keys that open it."""

from typing import Annotated, Final

import typer

from features.home import Home
from features.verbs.terminal import DEFAULT_HOME, Where, clock, err, say, show

SHOWN_ONCE: Final = "shown this once, and kept nowhere; a service that runs takes it at once"

keys = typer.Typer(name="keys", help="Who may ask the service for what.", no_args_is_help=True)


def serve(
    home: Where = DEFAULT_HOME,
    host: Annotated[str, typer.Option(help="Without keys (holdfast keys) only loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free one.")] = 3000,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that answer; as holdfast.toml says unless said.")
    ] = None,
) -> None:
    """Answer decisions over HTTP until stopped."""
    import training.lean  # noqa: F401  (before XGBoost itself)

    # isort: split
    from serving.service import serve as answer

    def ready(address: str) -> None:
        print(f"holdfast answers on {address}", flush=True)  # noqa: T201 (plain: scripts read it)

    answer(Home(home), host=host, port=port, workers=workers, ready=ready)


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Of the system that will ask.")],
    home: Where = DEFAULT_HOME,
    *,
    scope: Annotated[
        list[str],
        typer.Option(help="decide, outcome, batch, metrics, admin, privacy, report, explain; again for more."),
    ],
    expires: Annotated[str, typer.Option(help="Such as 90d; never unless said.", show_default=False)] = "",
    rate: Annotated[
        int | None, typer.Option(min=1, help="Requests a second, of each process; as holdfast.toml says unless said.")
    ] = None,
) -> None:
    """Make a key; from the first on, every call but /livez and /readyz needs one."""
    from serving.keys import create_key, parse_period

    lasts = parse_period(expires) if expires else None
    print(create_key(Home(home).keys, name, scope, now=clock(), lasts=lasts, per_second=rate))  # noqa: T201 (plain)
    err.print(SHOWN_ONCE)


@keys.command("list")
def keys_list(home: Where = DEFAULT_HOME) -> None:
    """List the keys; none can be read from it."""
    from serving.keys import keys_sheet, read_keys

    show(keys_sheet(read_keys(Home(home).keys), clock()))


@keys.command("rotate")
def keys_rotate(
    name: Annotated[str, typer.Argument(help="Of the key.")],
    home: Where = DEFAULT_HOME,
    keep: Annotated[str, typer.Option(help="How long the old one still opens.")] = "24h",
) -> None:
    """Make another key of the same name and scopes; both are valid until the old one ends."""
    from serving.keys import parse_period, rotate_key

    print(rotate_key(Home(home).keys, name, now=clock(), keep=parse_period(keep)))  # noqa: T201 (plain)
    err.print(f"{SHOWN_ONCE}; the old one ends in {keep}")


@keys.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(help="Of the key.")],
    home: Where = DEFAULT_HOME,
) -> None:
    """Let a key, and one that it is being rotated from, open nothing from now on."""
    from serving.keys import revoke_key

    say(f"{revoke_key(Home(home).keys, name)} revoked; a service that runs refuses it at once")
