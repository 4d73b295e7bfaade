"""What the command says and what it exits with: one line for a person, one code for a script."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import __version__, cli, config_file, environment, journey, ray_runtime
from raycl.config import Config
from raycl.serving import client
from raycl.serving.api import Answer, Item, Query
from raycl.storage import pointer
from tests import tiny as builders
from tests.command import Ended, Run, in_process

STAGES = ("pairs", "train", "evaluate", "index", "publish")
NO_RAY = """
import sys
import ray
from raycl.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print("Ray was started" if ray.is_initialized() else "no Ray")
    sys.exit(end.code)
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command in this process; it fails where it would start Ray."""
    monkeypatch.setattr(environment, "leave", sys.exit)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    log, level = logging.getLogger("raycl"), logging.getLogger("raycl").level
    yield in_process(monkeypatch, capsys)
    log.setLevel(level)


@pytest.fixture(scope="session")
def tiny(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a tiny finished and published workspace; a test that changes files copies it first."""
    return builders.finished(tmp_path_factory.getbasetemp())


def written(config: Config, folder: Path) -> Path:
    """The config as a YAML file."""
    path = folder / "raycl.yaml"
    path.write_text(config_file.dump(config), encoding="utf-8")
    return path


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The config file of a log that no stage has read."""
    builders.write_log(tmp_path / "log")
    (tmp_path / "plain").write_text("a file, no folder")
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "log" / "events.parquet").read_bytes()[:-9])
    log = pq.read_table(tmp_path / "log" / "events.parquet")
    pq.write_table(log.slice(0, 0), tmp_path / "empty.parquet")
    pq.write_table(log.drop_columns(["item_id"]), tmp_path / "no-items.parquet")
    pq.write_table(log.set_column(1, "item_id", log["item_id"].cast(pa.string())), tmp_path / "texts.parquet")
    return written(builders.tiny_config(tmp_path), tmp_path)


def one_line(ended: Ended) -> str:
    """The only line that the command said, on standard error."""
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    return line.removeprefix("raycl: ")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trian.epochs=3", "trian={'epochs': 3}: unknown key; did you mean 'train'?"),
        ("train.epoch=3", "train.epoch=3: unknown key; did you mean 'epochs'?"),
        ("train.epochs=0", "train.epochs=0: input should be greater than or equal to 1"),
        ("logs.0.uri=DIR/absent.parquet", "logs.0.uri=DIR/absent.parquet does not exist, or holds no Parquet"),
        ("logs.0.uri=DIR/empty.parquet", "logs.0.uri=DIR/empty.parquet holds no rows in 1 Parquet files"),
        ("logs.0.uri=DIR/torn.parquet", "logs.0.uri: file DIR/torn.parquet is not readable Parquet"),
        (
            "logs.0.uri=DIR/no-items.parquet",
            "logs.0.uri: file no-items.parquet has no column 'item_id' (it has user_id, timestamp): name the right",
        ),
        ("logs.0.columns.item=item", "logs.0.uri: file events.parquet has no column 'item' (it has user_id, item_id,"),
        ("logs.0.uri=DIR/texts.parquet", "logs.0.columns.item=item_id (string) and items.id_column=item_id (int64) do"),
        ("items.uri=DIR/nothing", "items.uri=DIR/nothing does not exist, or holds no Parquet files: check the path"),
        ("workspace=DIR/plain/below", "workspace=DIR/plain/below cannot be written"),
        ("workspace=ftp://host/x", "URI ftp://host/x: the scheme is unknown; use a local path or s3://bucket/prefix"),
        ("train.num_workers=3", "train.global_batch_size=32 must divide evenly by train.num_workers=3"),
        ("epochs", "--set epochs: write it as dotted.path=value"),
    ],
)
@pytest.mark.parametrize("command", ["pairs", "run"])
def test_a_bad_config_or_input_is_one_line_and_2_before_ray_starts(
    run: Run, fresh: Path, command: str, override: str, told: str
) -> None:
    folder = str(fresh.parent)
    ended = run(command, fresh, "--set", override.replace("DIR", folder))
    assert ended.code == 2
    assert one_line(ended).startswith(told.replace("DIR", folder))


def test_a_config_file_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    ended = run("pairs", tmp_path / "none.yaml")
    assert ended.code == 2
    assert one_line(ended).startswith(f"config file {tmp_path}/none.yaml cannot be read: No such file or directory;")


def test_a_relative_workspace_is_refused_on_a_cluster(run: Run, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    ended = run("pairs", fresh, "--set", "workspace=here")
    assert ended.code == 2
    assert one_line(ended).startswith("workspace=here is relative, and on a cluster every process has a folder of its")


def test_the_real_command_refuses_without_starting_ray(fresh: Path) -> None:
    """As a user runs it, in a process of its own."""
    command = [sys.executable, "-c", NO_RAY, "run", str(fresh), "--set", "logs.0.columns.user=who"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (2, "no Ray\n")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("raycl: logs.0.uri: file events.parquet has no column 'who'")


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "raycl", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "missing", "told"),
    [
        ("train", "pairs", "has no finished pairs of this config: run 'raycl pairs' first"),
        ("evaluate", "towers", "has no finished towers of this config: run 'raycl train' first"),
        ("report", "towers", "has no finished towers of this config: run 'raycl train' first"),
        ("index", "evaluations", "has no finished evaluations of this config: run 'raycl evaluate' first"),
        ("publish", "releases", "has no finished releases of this config: run 'raycl index' first"),
        ("serve", "releases/published", "has no published release: run 'raycl run' or 'raycl publish' first"),
    ],
)
def test_a_stage_before_its_input_names_the_command_to_run_first(
    run: Run, tiny: Config, tmp_path: Path, command: str, missing: str, told: str
) -> None:
    config = builders.copied(tiny, tmp_path)
    shutil.rmtree(Path(config.workspace) / missing)
    ended = run(command, written(config, tmp_path))
    assert ended.code == 2
    assert one_line(ended) == f"workspace={config.workspace} {told}"


@pytest.mark.parametrize("command", STAGES)
def test_a_finished_stage_is_one_line_of_json(run: Run, tiny: Config, tmp_path: Path, command: str) -> None:
    ended = run(command, written(tiny, tmp_path), "--json")
    assert (ended.code, ended.err) == (0, "")
    (line,) = ended.out.splitlines()
    told = json.loads(line)
    assert list(told) == ["stage", "version", "uri", "worked", "counts", "dropped", "facts", "seconds"]
    assert (told["stage"], told["worked"]) == (command, False)
    assert Path(told["uri"]).name == told["version"]
    assert (Path(told["uri"]) / "manifest.json").exists()


def test_a_finished_journey_is_a_line_of_json_a_stage(run: Run, tiny: Config, tmp_path: Path) -> None:
    ended = run("run", written(tiny, tmp_path), "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [json.loads(line)["stage"] for line in ended.out.splitlines()] == list(STAGES)


def test_a_finished_stage_tells_a_person_that_there_is_nothing_to_do(run: Run, tiny: Config, tmp_path: Path) -> None:
    ended = run("evaluate", written(tiny, tmp_path))
    assert (ended.code, ended.err) == (0, "")
    assert "evaluate: nothing to do, 2" in ended.out
    assert "recall_at_10" in ended.out
    assert "most popular" in ended.out


def test_a_report_says_where_page_and_card_are(run: Run, tiny: Config, tmp_path: Path) -> None:
    config = builders.copied(tiny, tmp_path)
    ended = run("report", written(config, tmp_path), "--json")
    assert (ended.code, ended.err) == (0, "")
    made = json.loads(ended.out)
    evaluation = Path(config.workspace) / "evaluations" / made["evaluation"]
    assert (evaluation / "manifest.json").exists()
    assert made["evaluation"] in Path(made["page"]).read_text(encoding="utf-8")
    assert made["evaluation"] in Path(made["card"]).read_text(encoding="utf-8")
    shutil.rmtree(evaluation)
    ended = run("report", written(config, tmp_path))
    assert (ended.code, ended.err) == (0, "")
    page, card, none = ended.out.splitlines()
    assert Path(page.removeprefix("page: ")).parent == Path(card.removeprefix("card: ")).parent
    assert (Path(page.removeprefix("page: ")).parent / "manifest.json").exists()
    assert none == "evaluation: none yet; raycl evaluate makes one"


@pytest.mark.parametrize("command", ["publish", "run"])
def test_a_refusal_of_the_gate_is_3_with_its_reason(
    run: Run, tiny: Config, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = builders.changed(builders.copied(tiny, tmp_path), "gate", min_recall=1.0)
    with monkeypatch.context() as patched:
        patched.setattr(ray_runtime, "connect", lambda _: None)
        version = journey.index(refused).version.name
    ended = run(command, written(refused, tmp_path), "--json")
    assert ended.code == 3
    (line,) = ended.err.splitlines()
    assert line.startswith(f"raycl: release {version} is not published: recall@10 0.")
    assert line.endswith(" < 1 on the test part")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["frobnicate"], "No such command 'frobnicate'."),
        (["config", "frobnicate"], "No such command 'frobnicate'."),
        (["pairs", "--frobnicate", "raycl.yaml"], "No such option: --frobnicate"),
        (["pairs"], "Missing argument 'CONFIG'."),
        (["query", "raycl.yaml", "--history", "1", "-k", "0"], "Invalid value for '-k'"),
    ],
)
def test_a_command_line_that_is_none_is_2_with_the_usage(run: Run, arguments: list[str], told: str) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("Usage: ")
    assert told in ended.err


def test_no_command_at_all_shows_the_help(run: Run) -> None:
    ended = run()
    assert ended.code == 2
    assert all(command in ended.out + ended.err for command in STAGES)


def test_help_and_version_are_0(run: Run) -> None:
    assert run("--help").code == 0
    assert run("pairs", "--help").code == 0
    assert run("--version") == Ended(0, f"{__version__}\n", "")


def test_the_schema_is_json_of_every_section(run: Run) -> None:
    ended = run("config", "schema")
    assert (ended.code, ended.err) == (0, "")
    schema = json.loads(ended.out)
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["required"] == ["workspace", "logs"]
    assert schema["additionalProperties"] is False


def test_a_good_config_is_said_to_be_good_without_reading_its_sources(run: Run, fresh: Path) -> None:
    shutil.rmtree(fresh.parent / "log")
    ended = run("config", "check", fresh)
    assert ended == Ended(0, f"{fresh} is good: workspace {fresh.parent}/workspace, 1 log source(s)\n", "")


def test_a_bad_config_is_told_one_line_a_problem(run: Run, fresh: Path) -> None:
    ended = run("config", "check", fresh, "--set", "train.epochs=0", "--set", "model.dmi=3")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        "raycl: model.dmi=3: unknown key; did you mean 'dim'?",
        "train.epochs=0: input should be greater than or equal to 1",
    ]


def test_an_interrupted_command_says_how_to_go_on(
    run: Run, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(config: Config) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(journey, "publish", interrupt)
    ended = run("publish", written(tiny, tmp_path))
    assert ended.code == 1
    assert one_line(ended) == "interrupted; run the same command again to go on"


def test_a_query_without_a_service_is_1_and_names_the_command_that_starts_it(run: Run, fresh: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # bound and not listened to, so nothing answers
        ended = run("query", fresh, "--history", "101,102", "--set", f"serving.port={port}")
    assert ended.code == 1
    line = one_line(ended)
    assert line.startswith(f"http://127.0.0.1:{port} does not answer (")
    assert line.endswith("): start it with 'raycl serve CONFIG', or name another --url")


@pytest.mark.parametrize("who", [[], ["--user", "1", "--history", "101"]])
def test_a_query_is_asked_with_a_user_or_with_a_history(run: Run, fresh: Path, who: list[str]) -> None:
    ended = run("query", fresh, *who)
    assert ended.code == 2
    assert one_line(ended) == "give either --user ID or --history ID,ID,..."


def test_a_query_to_any_free_port_needs_the_url(run: Run, fresh: Path) -> None:
    ended = run("query", fresh, "--history", "101", "--set", "serving.port=0")
    assert ended.code == 2
    assert one_line(ended) == "serving.port=0 is another port at each start: give --url with what 'raycl serve' said"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Query]]:
    """What the service was asked; it answers with one item."""
    found: list[tuple[str, Query]] = []

    def answer(url: str, query: Query, token: str | None = None) -> Answer:
        assert token == os.environ.get("ASKED_WITH")
        found.append((url, query))
        item = Item(item_id=104, score=0.25, title="Item 104", display={"price": 4.5})
        return Answer(release="r1", items=[item], short=True, matched=1, unknown_history=1)

    monkeypatch.setattr(client, "ask", answer)
    return found


def test_a_query_for_a_user_is_asked_with_the_users_events(
    run: Run, tiny: Config, tmp_path: Path, asked: list[tuple[str, Query]]
) -> None:
    ended = run("query", written(tiny, tmp_path), "--user", "1", "-k", "3", "--url", "http://host:9", "--json")
    assert (ended.code, ended.err) == (0, "")
    told: dict[str, Any] = json.loads(ended.out)
    assert (told["release"], told["items"][0]["title"]) == ("r1", "Item 104")
    log = pq.read_table(tiny.logs[0].uri).to_pylist()
    expected: list[int | str] = [row["item_id"] for row in log if row["user_id"] == 1]
    assert asked == [("http://host:9", Query(history=expected, user={"country": "pe", "age": 20.0}, k=3))]


def test_a_query_is_asked_with_the_first_token_of_the_variable_that_the_config_names(
    run: Run, fresh: Path, asked: list[tuple[str, Query]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASKED_WITH", "one")
    monkeypatch.setenv("RAYCL_TOKENS", "one, two")
    named = "serving.guard.token_env=RAYCL_TOKENS"
    ended = run("query", fresh, "--history", "101", "--url", "http://host:9", "--set", named)
    assert (ended.code, len(asked)) == (0, 1)


def test_a_query_with_a_history_prints_titles(run: Run, fresh: Path, asked: list[tuple[str, Query]]) -> None:
    ended = run("query", fresh, "--history", " 101,102 ,", "--set", "serving.port=8123")
    assert ended.code == 0
    assert asked == [("http://127.0.0.1:8123", Query(history=["101", "102"]))]
    assert "k" not in asked[0][1].model_fields_set
    assert all(word in ended.out for word in ("release r1", "Item 104", "0.2500", "4.5000"))
    assert "1 of 2 ids of the history are not in this release" in ended.out
    assert "basis: history (ordered by the history)" in ended.out
    assert "no more items are left to answer with" in ended.out


@pytest.mark.parametrize("content", [b"not an index", None])
def test_a_release_that_cannot_be_loaded_is_not_said_to_be_served(
    run: Run, tiny: Config, tmp_path: Path, content: bytes | None
) -> None:
    config = builders.copied(tiny, tmp_path)
    published = pointer.current(journey.workspace(config).store)
    assert published is not None
    shard = Path(config.workspace, "releases", published.release, "shards", "00001.faiss")
    shard.unlink() if content is None else shard.write_bytes(content)
    ended = run("serve", written(config, tmp_path))
    assert ended.code == 1
    assert one_line(ended).startswith(str(shard))


def test_serving_on_a_port_that_is_taken_is_2_before_ray_starts(run: Run, tiny: Config, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("serve", written(tiny, tmp_path), "--set", f"serving.port={port}")
    assert ended.code == 2
    assert one_line(ended).startswith(f"serving.port={port} on 127.0.0.1 is taken (")


def test_a_job_is_the_stage_with_the_jobs_own_arguments(
    tiny: Config, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["job.py", str(written(tiny, tmp_path)), "--json"])
    with pytest.raises(SystemExit) as end:
        cli.job("index")
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "index"


def test_a_trial_of_a_search_that_could_not_run_is_refused_before_ray_starts(run: Run, tmp_path: Path) -> None:
    tree = builders.tiny_tree(tmp_path) | {"search": {"fields": {"model.dim": [8, 0]}}}
    path = tmp_path / "shop.yaml"
    path.write_text(json.dumps(tree), encoding="utf-8")
    for command in (["tune", path], ["config", "check", path]):
        code, out, err = run(*command)
        assert (code, out) == (2, "")
        assert "(model.dim=0) is refused: model.dim=0: input should be greater than or equal to 1" in err
    tree["search"]["fields"] = {"model.dim": [8, 16]}
    path.write_text(json.dumps(tree), encoding="utf-8")
    assert "1 log source(s), a search of 2 trials" in run("config", "check", path).out
    builders.write_log(tmp_path / "log")
    told = run("config", "check", path, "--inputs").out
    assert re.search(r"1 log source\(s\) of [\d,]+ rows, a search of 2 trials", told)


def test_event_types_without_a_weight_are_told_with_the_inputs_alone(run: Run, fresh: Path) -> None:
    log = pq.read_table(fresh.parent / "log" / "events.parquet")
    how = pa.array(["cart"] * 7 + ["view"] * (log.num_rows - 7))
    pq.write_table(log.append_column("how", how), fresh.parent / "log" / "events.parquet")
    asked = ("config", "check", fresh, "--set", "logs.0.columns.event=how", "--set", "event_weights.view=1")
    assert len(run(*asked).out.splitlines()) == 1
    ended = run(*asked, "--inputs")
    good, warning = ended.out.splitlines()
    assert (ended.code, good.startswith(f"{fresh} is good: ")) == (0, True)
    assert warning.startswith("event type 'cart' has no weight, and its 7 rows would be quarantined")
