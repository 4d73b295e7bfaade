"""The ``raycl`` command: one verb a stage, one line for what goes wrong, and exit codes that a script can act on."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from raycl import (
    __version__,
    cli_cluster,
    cli_config,
    cli_delta,
    cli_prune,
    cli_release,
    config_file,
    environment,
    journey,
    lineage,
)
from raycl.cli_options import AsJson, ConfigPath, Force, Overrides
from raycl.config import Config
from raycl.console import Screen
from raycl.errors import ConfigError, InputError, RayclError
from raycl.journey import Outcome

app = typer.Typer(
    help="Contrastive retrieval on Ray: logs in Parquet to answers over HTTP.",
    epilog="Exit codes: 0 done, 2 bad config or input, 3 the gate refused to publish, 1 anything else.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cli_config.app, name="config")
app.add_typer(cli_release.app, name="release")
app.add_typer(cli_delta.app, name="delta")
app.command()(cli_cluster.launch)
app.command()(cli_cluster.doctor)
app.command()(cli_prune.prune)

# Typer keeps a click of its own, and exports but one of the errors that its parser raises.
_BadCommand: Any = typer.BadParameter.__mro__[1]
_INTERRUPTED = 130
"""What Typer returns after Ctrl-C."""
_STOP_WITHIN_S = 10.0


@app.command()
def pairs(config: ConfigPath, overrides: Overrides = None, force: Force = False, as_json: AsJson = False) -> None:
    """Stage 1: logs to contrastive pairs."""
    _stage(config, overrides, as_json, lambda loaded, _: journey.pairs(loaded, force=force))


@app.command()
def train(config: ConfigPath, overrides: Overrides = None, force: Force = False, as_json: AsJson = False) -> None:
    """Stage 2: pairs to a user tower and an item tower."""
    _stage(config, overrides, as_json, lambda loaded, screen: journey.train(loaded, screen.epoch, force=force))


@app.command()
def evaluate(
    config: ConfigPath,
    overrides: Overrides = None,
    force: Force = False,
    index: Annotated[
        bool, typer.Option("--index", help="Measure the lists of the config's finished release too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Stage 3: metrics on the full catalogue with intervals, by segment, beside simple baselines."""
    outcome = _stage(config, overrides, as_json, lambda loaded, _: journey.evaluate(loaded, force=force, index=index))
    if not as_json:
        from raycl.evaluation import shown
        from raycl.evaluation.comparison import Evaluation

        screen, found = Screen(as_json=False), Evaluation(outcome.version)
        screen.rows("towers and baselines", shown.models(found))
        screen.rows("segments, towers", shown.segments(found))
        for line in found.protocol.lines():
            screen.say(line)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Folder of an evaluation, or a config file.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one, measured by the same protocol.")],
    model: Annotated[str, typer.Option(help="What of A is compared: the towers or a baseline.")] = "towers",
    with_model: Annotated[str | None, typer.Option("--with", help="What of B; by default the same.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Such as ndcg_at_10; by default all.")] = None,
    segment: Annotated[list[str] | None, typer.Option(help="Such as all or items.age=new; by default all.")] = None,
    correction: Annotated[str, typer.Option(help="holm or benjamini_hochberg.")] = "holm",
    as_json: AsJson = False,
) -> None:
    """How two evaluations differ over the same users, with intervals and a paired test corrected for their number."""
    from raycl.evaluation import comparison, finished, shown

    one, other = finished.load(first), finished.load(second)
    found = comparison.compare(
        one,
        other,
        models=(model, with_model or model),
        metrics=metric or (),
        segments=segment or (),
        correction=comparison.correction_of(correction),
    )
    screen = Screen(as_json=as_json)
    if as_json:
        screen.json({"protocol": one.protocol.name, "test": comparison.METHOD, "rows": found.to_dicts()})
        return
    screen.rows(f"{other.version.name} less {one.version.name}", shown.compared(found))
    screen.say(f"p: {comparison.METHOD}; p_corrected: {correction} over {found.height} rows")
    for line in one.protocol.lines():
        screen.say(line)


@app.command()
def report(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """The page and the card of the config's towers, with their newest evaluation."""
    from raycl.evaluation import report as reports

    loaded, screen = config_file.load(config, overrides or ()), Screen(as_json=as_json)
    workspace = journey.workspace(loaded)
    made = reports.make(workspace, lineage.towers(loaded, workspace))
    if as_json:
        screen.json({"page": made.page, "card": made.card, "evaluation": made.evaluation})
        return
    screen.say(f"page: {made.page}\ncard: {made.card}")
    screen.say(f"evaluation: {made.evaluation or 'none yet; raycl evaluate makes one'}")


@app.command()
def index(config: ConfigPath, overrides: Overrides = None, force: Force = False, as_json: AsJson = False) -> None:
    """Stage 4: the catalogue's vectors to a sharded index, judged by the gate."""
    _stage(config, overrides, as_json, lambda loaded, _: journey.index(loaded, force=force))


@app.command()
def publish(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Make the release current, if the gate let it pass."""
    _stage(config, overrides, as_json, lambda loaded, _: journey.publish(loaded))


@app.command()
def run(config: ConfigPath, overrides: Overrides = None, force: Force = False, as_json: AsJson = False) -> None:
    """All stages, from logs to a published release, and what ``answers`` asks it; finished ones are not done again."""
    loaded, screen = config_file.load(config, overrides or ()), Screen(as_json=as_json)
    try:
        journey.run(loaded, screen.epoch, screen.outcome, force=force)
    finally:
        screen.end_epochs()
    if loaded.answers is not None:
        from raycl import answers

        screen.answers(answers.ask(loaded))


@app.command()
def nightly(
    config: ConfigPath,
    overrides: Overrides = None,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what each stage would do, and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """All stages under a lease, so that two nights never overlap, and a page of what changed."""
    from raycl import nightly as night

    loaded, screen = config_file.load(config, overrides or ()), Screen(as_json=as_json)
    if dry_run:
        steps = [asdict(step) for step in night.plan(loaded)]
        if as_json:
            screen.json({"plan": steps})
        else:
            screen.rows(f"plan for {loaded.workspace}", steps)
        return
    try:
        page = night.run(loaded, screen.epoch, screen.outcome, force=force)
    finally:
        screen.end_epochs()
    if as_json:
        screen.json({"stage": "nightly", "page": page})


@app.command()
def tune(
    config: ConfigPath,
    overrides: Overrides = None,
    best: Annotated[
        Path | None, typer.Option(help="Write the best config here too, as a file of this machine.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try the fields of the config's search section, and write the config of the best trial for 'raycl run'."""
    outcome = _stage(config, overrides, as_json, lambda loaded, _: journey.tune(loaded))
    from raycl.search import shown

    screen = Screen(as_json=as_json)
    if not as_json:
        screen.rows(f"trials by {outcome.version.manifest.facts['metric']}", shown.trials(outcome.version))
        screen.rows("what the fields mattered", shown.fields(outcome.version))
    written = shown.write_best(outcome.version, best)
    screen.say(f"best config: {written}")


@app.command()
def ensemble(
    members: Annotated[list[Path], typer.Argument(metavar="A B ...", help="Configs whose towers are finished.")],
    output: Annotated[Path, typer.Option(help="Where to write the config of the ensemble.")],
    combine: Annotated[str, typer.Option(help="concatenate or average, see ensemble.combine.")] = "concatenate",
    as_json: AsJson = False,
) -> None:
    """Put the towers of several configs together: 'raycl run' takes the config that it writes, which is else A's."""
    from raycl.training.ensemble import config_of

    whole, screen = config_of([config_file.load(path) for path in members], combine), Screen(as_json=as_json)
    screen.outcome(journey.train(whole, screen.epoch))
    try:
        output.write_text(config_file.dump(whole), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output {output} cannot be written: {error.strerror}; check the folder") from error
    screen.say(f"config of the ensemble: {output}")


@app.command()
def serve(config: ConfigPath, overrides: Overrides = None) -> None:
    """Stage 5: answer over HTTP from the current release, until interrupted."""
    loaded, screen = config_file.load(config, overrides or ()), Screen(as_json=False)
    require_published(loaded)
    from raycl.serving import ray_serve

    url = ray_serve.start(loaded)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # after the start, since Ray sets handlers of its own
        signal.signal(number, lambda *_: stopped.set())
    screen.say(f"serving at {url} (POST /v1/retrieve, documentation at /docs); stop with Ctrl-C")
    stopped.wait()
    goodbye = threading.Thread(target=ray_serve.stop, daemon=True)
    goodbye.start()
    goodbye.join(_STOP_WITHIN_S)  # it never returns where the signal took Ray's own processes too
    environment.leave(0)


@app.command()
def query(
    config: ConfigPath,
    overrides: Overrides = None,
    user: Annotated[str | None, typer.Option(help="Ask with this user's events, as the pairs know them.")] = None,
    history: Annotated[str | None, typer.Option(help="Item ids, comma-separated, the newest last.")] = None,
    k: Annotated[
        int | None, typer.Option("-k", "--k", min=1, help="How many items; by default what the service gives.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The service; by default where the config serves.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the running service, and print its answer with titles."""
    from raycl.data.handoff import Pairs
    from raycl.serving import client, shown
    from raycl.serving.api import MOST_IDS, Query

    loaded, screen = config_file.load(config, overrides or ()), Screen(as_json=as_json)
    if (user is None) == (history is None):
        raise ConfigError("give either --user ID or --history ID,ID,...")
    if url is None and not loaded.serving.port:
        raise ConfigError("serving.port=0 is another port at each start: give --url with what 'raycl serve' said")
    if user is not None:
        asked = client.query_of(Pairs.of(lineage.pairs(loaded, journey.workspace(loaded))), user, k)
    else:
        items = [part.strip() for part in str(history).split(",") if part.strip()]
        asked = client.with_k(Query(history=list(items[-MOST_IDS:])), k)
    named = loaded.serving.guard.token_env
    token = os.environ.get(named, "").partition(",")[0].strip() if named else None
    answer = client.ask(url or f"http://{loaded.serving.host}:{loaded.serving.port}", asked, token=token)
    if as_json:
        screen.json(answer.model_dump())
    else:
        screen.rows(f"release {answer.release}", shown.rows(answer))
        for line in shown.lines(answer, len(asked.history)):
            screen.say(line)


@app.command()
def synth(
    output: Annotated[str, typer.Argument(help="Folder or s3:// prefix for events, items and users.")],
    rows: Annotated[int, typer.Option(min=1_000, help="Log rows, bad ones included.")] = 100_000,
    items: Annotated[int, typer.Option(min=100, help="Items in the catalogue.")] = 2_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic log with known faults and a known best recall, and a config that reads it."""
    from raycl.demo import synthesise

    truth = synthesise(output, rows, items, seed)
    screen = Screen(as_json=as_json)
    if as_json:
        screen.json(truth)
    else:
        screen.rows(
            f"synthetic log in {output}", [{"fact": name, "value": str(value)} for name, value in truth.items()]
        )


@app.command()
def demo(
    workspace: Annotated[str, typer.Option(help="Where to work.")] = "workspace/demo",
    rows: Annotated[int, typer.Option(min=50_000, help="Log rows to make.")] = 200_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """The whole journey on a synthetic log, ending with answers over HTTP."""
    from raycl import demo as journey_demo

    journey_demo.run(workspace, rows, seed, Screen(as_json=False))


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """What holds for every command."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def require_published(config: Config) -> None:
    """InputError where the workspace has no current release to serve, CorruptRelease where it cannot be loaded."""
    from raycl.index import release
    from raycl.storage import pointer

    store = journey.workspace(config).store
    published = pointer.current(store)
    if published is None:
        raise InputError(f"workspace={store.uri} has no published release: run 'raycl run' or 'raycl publish' first")
    release.load(store.under(f"releases/{published.release}"))


def job(stage: str) -> None:
    """Entry point of a Ray job: the command ``stage`` with the job's own arguments."""
    main([stage, *sys.argv[1:]])


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    environment.prepare()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("raycl").setLevel(logging.INFO)
    code = _exit_code(lambda: app(args=arguments, standalone_mode=False))
    if code == _INTERRUPTED:
        forced = "--force" in (sys.argv if arguments is None else arguments)
        again = "without --force" if forced else "again"
        Screen(as_json=False).error(f"interrupted; run the same command {again} to go on")
        environment.leave(1)
    sys.exit(code)


def _exit_code(command: Callable[[], Any]) -> int:
    screen = Screen(as_json=False)
    try:
        returned = command()
    except RayclError as error:
        screen.error(str(error))
        return error.exit_code
    except _BadCommand as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except SystemExit as end:
        if end.code != signal.SIGTERM:  # which Ray's handler turns into this exit
            raise
        return _INTERRUPTED
    return returned if isinstance(returned, int) else 0


def _stage(
    config: Path, overrides: list[str] | None, as_json: bool, stage: Callable[[Config, Screen], Outcome]
) -> Outcome:
    loaded, screen = config_file.load(config, overrides or ()), Screen(as_json=as_json)
    try:
        outcome = stage(loaded, screen)
        screen.outcome(outcome)
        return outcome
    finally:
        screen.end_epochs()
