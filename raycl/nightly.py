"""The nightly job: every stage under one lease, from the log of the new day to the published release and its page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from raycl import journey, lineage, schema
from raycl.config import Config
from raycl.errors import GateRefused, InputError, RayclError
from raycl.journey import Outcome, Report
from raycl.storage import lease, pointer
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace

log = logging.getLogger(__name__)

FOLDER = "nightly"
_LEASES = "lease"
_FOLDERS = {"pairs": "pairs", "train": "towers", "evaluate": "evaluations", "index": "releases"}
"""Where the versions of each stage lie."""
_REMEDY = "; the nightly job of a workspace runs once at a time"


@dataclass(frozen=True)
class Step:
    """What a night would do of a stage."""

    stage: str
    would: str
    """``nothing``, ``go on``, ``work`` or ``refuse``"""
    reason: str


def run(config: Config, report: Report, finished: Callable[[Outcome], None], *, force: bool = False) -> str:
    """Every stage in order under the lease of the workspace; returns where the page of what changed lies.

    Finished stages are found and not done again, so a night that was killed goes on when it is started again.
    ``report`` hears of the epochs, ``finished`` of each stage. InputError, which names the holder, while another night
    runs. GateRefused, once the page is written, leaves the current release as it is: also where the release that these
    inputs make was published before, and rolled back since.
    """
    workspace = journey.workspace(config)
    workspace.store.require_writable()
    held = lease.take(workspace.store.under(FOLDER), _LEASES, _REMEDY)
    try:
        return _stages(config, workspace, held.require, report, finished, force=force)
    finally:
        held.give_back()


def _stages(
    config: Config,
    workspace: Workspace,
    require_lease: Callable[[], None],
    report: Report,
    finished: Callable[[Outcome], None],
    *,
    force: bool,
) -> str:
    outcomes = [journey.pairs(config, force=force)]
    finished(outcomes[0])
    config, why = tonight(config, workspace, outcomes[0].version)
    log.info("training: %s", why)
    stages: list[Callable[[], Outcome]] = [
        lambda: journey.train(config, report, force=force),
        lambda: journey.evaluate(config, force=force),
        lambda: journey.index(config, force=force),
    ]
    for stage in stages:
        require_lease()
        outcomes.append(stage())
        finished(outcomes[-1])
    page = _page(config, workspace, outcomes)
    require_lease()
    if taken_back := _taken_back(workspace.store, outcomes[-1].version.name):
        raise GateRefused(taken_back)
    finished(journey.publish(config))
    return page


def _taken_back(store: Store, release: str) -> str:
    """That a release was current and is not any more, as after a rollback: no night undoes that; else nothing."""
    published = [one.pointer for one in pointer.history(store)]
    numbers = [one.number for one in published if one.release == release]
    if not numbers or published[-1].release == release:
        return ""
    return (
        f"release {release} is not published: it was publication {numbers[-1]}, and {published[-1].release} took its"
        f" place since: 'raycl release promote' publishes it again"
    )


def tonight(config: Config, workspace: Workspace, pairs: Version) -> tuple[Config, str]:
    """The config to train tonight's towers with, and in words how that is.

    With ``nightly.fine_tune`` they begin with the towers of the current release, unless these do not fit or were too
    often gone on from. A night that goes on after its publication begins with what it began with then.
    """
    how = config.nightly.fine_tune
    if config.ensemble is not None:
        return config, "not at all, as config.ensemble names finished towers to put together"
    if how is None:
        return config, "from the start, as nightly.fine_tune is not set"
    from raycl.training import start

    try:
        name = _towers_before(workspace, pairs)
        if name is None:
            return config, "from the start, as there are no towers before"
        if (in_a_row := _in_a_row(workspace, name)) >= how.most_in_a_row:
            return config, f"from the start, after {in_a_row} nights that went on from the towers before"
        problem = start.why_not(start.Before.named(workspace, name), config, pairs)
    except RayclError as error:
        return config, f"from the start: {error}"
    if problem:
        return config, f"from the start: {problem}"
    changed = {
        "start_from": name,
        "epochs": how.epochs,
        "learning_rate": how.learning_rate or config.train.learning_rate,
    }
    fewer = config.model_copy(update={"train": config.train.model_copy(update=changed)})
    return fewer, f"{how.epochs} epochs from towers {name}"


def _towers_before(workspace: Workspace, pairs: Version) -> str | None:
    """The towers of the current release; where these are of the same pairs, those that they began with."""
    from raycl.index import release

    published = pointer.current(workspace.store)
    if published is None:
        return None
    lineage = release.lineage_of(workspace.open("releases", published.release).store)
    return _began_with(workspace, lineage.towers) if lineage.pairs == pairs.name else lineage.towers


def _began_with(workspace: Workspace, towers: str) -> str | None:
    """The towers that these went on from; none where they began with what was pretrained on their own pairs."""
    inputs = workspace.open("towers", towers).manifest.inputs
    before = inputs.get("started_from")
    if before is None:
        return None
    try:
        is_own = workspace.open("towers", before).manifest.inputs["pairs"] == inputs["pairs"]
    except RayclError:
        return before
    return None if is_own else before


def _in_a_row(workspace: Workspace, towers: str) -> int:
    """How often the towers, and those that they began with, were gone on from; those that are gone are not counted."""
    count, name = 0, _began_with(workspace, towers)
    while name is not None:
        count += 1
        try:
            name = _began_with(workspace, name)
        except RayclError:
            break
    return count


def page_of(release: str) -> str:
    """Path of the page about the night that made this release."""
    return f"{FOLDER}/{release}.html"


def _page(config: Config, workspace: Workspace, outcomes: list[Outcome]) -> str:
    """Write the page of what changed, if that was not done before; a night does not fail of it."""
    from raycl.index import night, night_page

    built = outcomes[-1].version
    path = page_of(built.name)
    uri = f"{workspace.store.uri}/{path}"
    if workspace.store.exists(path):
        return uri
    published = pointer.current(workspace.store)
    stages = [night.Stage(one.stage, one.version.name, one.worked, one.wall_s) for one in outcomes]
    try:
        facts = night.measure(config, workspace, built, published.release if published else None, stages)
    except RayclError as error:
        log.warning("no page of what changed: %s", error)
        return ""
    workspace.store.write(path, night_page.render(facts).encode())
    log.info("what changed: %s", uri)
    return uri


def plan(config: Config) -> list[Step]:
    """What a night would do now, stage by stage; nothing is written, and Ray is not started.

    InputError where the sources cannot be used.
    """
    workspace = journey.workspace(config)
    steps = [_holder(workspace.store)]
    found: list[Version] = []
    for stage, folder in _FOLDERS.items():
        if len(found) < len(steps) - 1:
            steps.append(Step(stage, "work", f"{steps[-1].stage} comes before it, and is not finished"))
            continue
        why = ""
        if stage == "train":
            config, why = tonight(config, workspace, found[0])
            config = lineage.pretrained(config, workspace, found[0])
        step, version = _looked_for(workspace, stage, folder, _digest(config, workspace, folder, found), why)
        steps.append(step)
        found += [version] if version else []
    steps.append(_publication(workspace, found[-1] if len(found) == len(_FOLDERS) else None))
    return steps


def _digest(config: Config, workspace: Workspace, folder: str, found: list[Version]) -> str:
    """The fingerprint of a stage's version, made from those of the stages before it."""
    if folder == "pairs":
        from raycl.data import sources
        from raycl.text import ray_encode, tasks

        encoded = ray_encode.found(config, workspace)
        uri = encoded.store.under(tasks.FOLDER).uri if encoded is not None else None
        identities = [table.identity() for table in sources.open_inputs(config, uri).tables]
        return lineage.digest(config, folder, schema.PAIRS_FORMAT, identities)
    names = [version.name for version in found]
    return lineage.digest(config, folder, *(names[1:] if folder == "releases" else names[-1:]))


def require_free(store: Store) -> None:
    """Raise InputError, naming the holder, while a night runs in the workspace."""
    lease.require_free(store.under(FOLDER), _LEASES, _REMEDY)


def _holder(store: Store) -> Step:
    try:
        require_free(store)
    except InputError as error:
        return Step("lease", "refuse", str(error))
    return Step("lease", "work", "nobody holds it")


def _looked_for(workspace: Workspace, stage: str, folder: str, digest: str, how: str) -> tuple[Step, Version | None]:
    for version in workspace.readable(folder, digest[:12]):
        if version.manifest.fingerprint == digest:
            return Step(stage, "nothing", f"{version.name} is finished"), version
    begun = workspace.unfinished(folder, digest)
    if begun:
        return Step(stage, "go on", f"{begun[-1]} was begun and not finished"), None
    return Step(stage, "work", how or "there is no version of this input and config"), None


def _publication(workspace: Workspace, built: Version | None) -> Step:
    published = pointer.current(workspace.store)
    now = f"{published.release} is current" if published else "nothing is published"
    if built is None:
        return Step("publish", "work", f"if the gate lets it pass; {now}")
    if published is not None and published.release == built.name:
        return Step("publish", "nothing", now)
    if taken_back := _taken_back(workspace.store, built.name):
        return Step("publish", "refuse", taken_back)
    if not built.manifest.facts["publish"]:
        return Step("publish", "refuse", f"{built.manifest.facts['reason']}; {now}")
    return Step("publish", "work", f"{built.name} passed the gate; {now}")
