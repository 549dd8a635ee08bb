"""The front door: every verb of the loop, in the order in which a newcomer needs them.

A verb stands in the layer that does its work, below `verbs/`, and imports what it needs only when it runs: so `--help`
is fast, and serving never loads what only training needs.
"""

import gc
import os
import sys
import time
import warnings
from typing import Final

import typer
from rich.markup import escape

from features.errors import HoldfastError
from features.verbs import data, members
from features.verbs.terminal import err
from monitoring.verbs import loop, monitor
from serving.verbs import deciding, service
from training.verbs import migration, proof, releases

HELP: Final = """Who is about to leave, which offer is worth sending to whom, and whether it paid.

New here? [bold]holdfast demo[/] runs the whole loop on a retailer's year. With your own tables:
ingest, features build, features apply, features materialize, train, promote, serve."""
PANELS: Final = {
    "Start here": (loop.demo, loop.doctor),
    "Your data": (data.ingest, data.offers, data.features),
    "Learn, and let it serve": (
        loop.train,
        releases.evaluate,
        releases.promote,
        releases.rollback,
        releases.shadow,
        releases.releases,
    ),
    "Decide": (deciding.decide, service.serve, deciding.outcomes, deciding.decisions, service.keys),
    "Members' rights": (loop.retention, members.member),
    "Prove it": (proof.simulate, proof.report),
    "Is it still true?": (monitor.monitor,),
    "Beyond one machine": (migration.migrate,),
}
USAGE: Final = 2

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
for panel, verbs in PANELS.items():
    for verb in verbs:
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, rich_help_panel=panel)
        else:
            app.command(rich_help_panel=panel)(verb)


def main() -> None:
    """Run a verb; what a person can mend is one line and exit code 2."""
    quiet_dependencies()
    # by Python's own, 700, a fifth of the time in which Feast is imported goes into looking for garbage
    gc.set_threshold(50_000, 20, 20)
    try:
        app()
    except HoldfastError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(USAGE) from None


def quiet_dependencies() -> None:
    """Set one clock and switch every telemetry off, before any library is imported that reads these."""
    # threads of XGBoost that wait without spinning: beside another busy process a fit took 18 s with, 0.6 s without
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    switches = {"BENTOML_DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    os.environ.update({"TZ": "UTC", "ITERATIVE_DO_NOT_TRACK": "1", "FEAST_USAGE": "False", **switches})
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # the folder of whoever started this, which may be gone by now
    time.tzset()
    if not sys.warnoptions:
        warnings.simplefilter("ignore", DeprecationWarning)  # of libraries among themselves


if __name__ == "__main__":
    main()
