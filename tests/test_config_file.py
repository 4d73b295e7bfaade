"""A config file becomes a config, or one line a problem that says what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raycl import config_file
from raycl.config import Config
from raycl.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
TEXT = """
workspace: w
logs:
  - uri: first
  - {uri: second, columns: {user: who}}
items: {uri: items, features: [{column: category}, {column: price, kind: numeric}]}
train: {epochs: 3}
"""


def load(folder: Path, text: str, *overrides: str) -> Config:
    path = folder / "raycl.yaml"
    path.write_text(text, encoding="utf-8")
    return config_file.load(path, overrides)


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    return str(caught.value)


def test_a_file_becomes_a_config(tmp_path: Path) -> None:
    config = load(tmp_path, TEXT)
    assert [log.uri for log in config.logs] == ["first", "second"]
    assert config.logs[1].columns.user == "who"
    assert config.items is not None
    assert [feature.kind for feature in config.items.features] == ["categorical", "numeric"]
    assert config.train.epochs == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {epochs: 1}", "trian={'epochs': 1}: unknown key; did you mean 'train'?"),
        ("train: {epoch: 1}", "train.epoch=1: unknown key; did you mean 'epochs'?"),
        ("logs: [{uri: a}, {uri: b, time_units: ms}]", "logs.1.time_units=ms: unknown key; did you mean 'time_unit'?"),
        ("logs: [{uri: a, columns: {usr: u}}]", "logs.0.columns.usr=u: unknown key; did you mean 'user'?"),
        (
            "items: {uri: i, features: [{column: a}, {column: b, buckets: 7}]}",
            "items.features.1.buckets=7: unknown key; did you mean 'num_buckets'?",
        ),
        ("users: {uri: u, id_col: x}", "users.id_col=x: unknown key; did you mean 'id_column'?"),
        (
            "pairs: {split: {kind: time, valshare: 0.2}}",
            "pairs.split.valshare=0.2: unknown key; did you mean 'val_share'?",
        ),
        (
            "pairs: {split: {kind: column, hold_out: true}}",
            "pairs.split.hold_out=True: unknown key; did you mean 'hold_out_val'?",
        ),
        ("pairs: {split: {kind: leave_last_out, time: 1}}", "pairs.split.time=1: unknown key; known keys: kind"),
        (
            "pairs: {split: {kind: time, hold_out_val: true}}",
            "pairs.split.hold_out_val=True: unknown key; known keys: kind, val_share, test_share",
        ),
        (
            "evaluation: {zzz: 1}",
            "evaluation.zzz=1: unknown key; known keys: ks, part, exclude_met, use_gpu, users_per_block, auc,"
            " popularity_cuts, new_below, user_columns, item_columns, calibration, perturbed_share, resamples, seed,"
            " baselines",
        ),
        ("ray: {num_cpu: 1}", "ray.num_cpu=1: unknown key; did you mean 'num_cpus'?"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_one_of_its_section(tmp_path: Path, text: str, message: str) -> None:
    base = "workspace: w\n" + ("" if text.startswith("logs") else "logs: [{uri: a}]\n")
    assert refusal(tmp_path, base + text) == message


def test_a_split_of_no_known_kind_is_told_the_kinds(tmp_path: Path) -> None:
    base = "{workspace: w, logs: [{uri: a}], pairs: {split: %s}}"
    assert refusal(tmp_path, base % "{kind: random}").endswith(
        "unknown kind; known kinds: leave_last_out, leave_last_n, time, cold_users, cold_items, column"
    )
    assert refusal(tmp_path, base % "{}") == "pairs.split.kind: required and not set; add it to the config"
    assert refusal(tmp_path, base % "{kind: time, val_share: 2}").startswith("pairs.split.val_share=2: ")


def test_every_problem_is_a_line_of_its_own(tmp_path: Path) -> None:
    text = "{logs: [{uri: a, colums: 1}], train: {epochs: 0, max_failures: many}}"
    assert refusal(tmp_path, text).splitlines() == [
        "workspace: required and not set; add it to the config",
        "logs.0.colums=1: unknown key; did you mean 'columns'?",
        "train.epochs=0: input should be greater than or equal to 1",
        "train.max_failures=many: input should be a valid integer, unable to parse string as an integer",
    ]


def test_a_long_value_is_shown_by_its_start(tmp_path: Path) -> None:
    message = refusal(tmp_path, TEXT, f"train.epochs={'x' * 500}")
    assert message.startswith(f"train.epochs={'x' * 57}...: input should be")


def test_overrides_reach_sections_lists_and_mappings(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        TEXT,
        "train.epochs=7",
        "train.precision=bfloat16",
        "logs.1.uri=third",
        "logs.0.columns.weight=factor",
        "items.features.1.kind=categorical",
        "event_weights.view=2.5",
        "model.hidden=[32, 16]",
        "ray.num_cpus=null",
        "users.uri=a=b",
        "pairs.split={kind: time, test_share: 0.3}",
    )
    base = yaml.safe_load(TEXT)
    base["train"] = {"epochs": 7, "precision": "bfloat16"}
    base["logs"] = [{"uri": "first", "columns": {"weight": "factor"}}, {"uri": "third", "columns": {"user": "who"}}]
    base["items"]["features"][1]["kind"] = "categorical"
    base |= {"event_weights": {"view": 2.5}, "model": {"hidden": [32, 16]}, "users": {"uri": "a=b"}}
    base["pairs"] = {"split": {"kind": "time", "test_share": 0.3}}
    assert config == config_file.check(base)


def test_off_need_not_be_quoted(tmp_path: Path) -> None:
    assert yaml.safe_load("off") is False
    assert load(tmp_path, TEXT + "loss: {log_q: off}").loss.log_q == "off"
    assert load(tmp_path, TEXT, "loss.log_q=off").loss.log_q == "off"
    assert load(tmp_path, TEXT).loss.log_q == "static"


def test_the_last_of_two_overrides_holds(tmp_path: Path) -> None:
    assert load(tmp_path, TEXT, "train.epochs=7", "train.epochs=8").train.epochs == 8
    assert load(tmp_path, TEXT, "train={epochs: 4}", "train.num_workers=2").train.epochs == 4


def test_a_whole_item_of_a_list_can_be_set(tmp_path: Path) -> None:
    assert [log.uri for log in load(tmp_path, TEXT, "logs.0={uri: other}").logs] == ["other", "second"]


def test_overrides_leave_the_tree_that_they_are_given_alone() -> None:
    tree: dict[str, Any] = {"logs": [{"uri": "a"}], "train": {"epochs": 1}}
    changed = config_file.apply_overrides(tree, ["logs.0.uri=b", "train.epochs=2", "new.deep=3"])
    assert tree == {"logs": [{"uri": "a"}], "train": {"epochs": 1}}
    assert changed == {"logs": [{"uri": "b"}], "train": {"epochs": 2}, "new": {"deep": 3}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "write it as dotted.path=value, for example --set train.epochs=3"),
        ("=3", "write it as dotted.path=value, for example --set train.epochs=3"),
        ("", "write it as dotted.path=value, for example --set train.epochs=3"),
        ("train.epochs=[1", "the value is not YAML; quote it"),
        ("workspace=2024-13-45", "the value is not YAML; quote it"),
        ("logs.2.uri=x", "'2' is no position in a list of 2"),
        ("logs.-1.uri=x", "'-1' is no position in a list of 2"),
        ("logs.first.uri=x", "'first' is no position in a list of 2"),
        ("logs.²=x", "'²' is no position in a list of 2"),
        ("train.epochs.deep=3", "'train.epochs' is a plain value and has no 'deep'"),
        ("workspace.a.b=3", "'workspace' is a plain value and has no 'a'"),
    ],
)
def test_an_override_that_cannot_be_applied_says_why(tmp_path: Path, override: str, message: str) -> None:
    assert refusal(tmp_path, TEXT, override) == f"--set {override}: {message}"


def test_an_override_is_checked_like_the_file(tmp_path: Path) -> None:
    assert refusal(tmp_path, TEXT, "train.epoch=3") == "train.epoch=3: unknown key; did you mean 'epochs'?"
    assert refusal(tmp_path, TEXT, "train.epochs=") == "train.epochs=None: input should be a valid integer"
    assert refusal(tmp_path, TEXT, "logs..uri=x") == "--set logs..uri=x: '' is no position in a list of 2"


def test_variables_are_expanded_everywhere_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", "books")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("ABSENT", raising=False)
    config = load(
        tmp_path,
        """
        workspace: s3://${TEAM}/${ABSENT:-raycl}/${TEAM}${EMPTY}
        logs: [{uri: "${EMPTY:-log}", columns: {user: "${TEAM}_id"}}]
        serving: {port: "${ABSENT:-9000}"}
        items: {uri: i, display: ["$TEAM", "${ABSENT:-}x", "{TEAM}"]}
        """,
    )
    assert config.workspace == "s3://books/raycl/books"
    assert (config.logs[0].uri, config.logs[0].columns.user) == ("log", "books_id")
    assert config.serving.port == 9000
    assert config.items is not None
    assert config.items.display == ("$TEAM", "x", "{TEAM}")


def test_a_variable_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    assert refusal(tmp_path, "{workspace: 'a/${ABSENT}', logs: [{uri: x}]}") == (
        "a/${ABSENT}: environment variable ABSENT is not set; export it or write ${ABSENT:-default}"
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read: No such file or directory; check the path"):
        config_file.load(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory; check the path"):
        config_file.load(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "raycl.yaml"
    path.write_bytes(b"PAR1\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"raycl\.yaml is not UTF-8 text; check the path"):
        config_file.load(path)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("workspace: w\nlogs: [\ntrain: }", " at line 3"),
        ("workspace: w\n\tlogs: x", " at line 2"),
        ("workspace: 'w\n", " at line 2"),
        ("workspace: !!python/object/apply:os.getcwd []", " at line 1"),
        ("workspace: 2024-13-45", ""),
    ],
)
def test_what_is_not_yaml_is_told_by_its_line(tmp_path: Path, text: str, where: str) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(f"config file {tmp_path}/raycl.yaml is not YAML{where}: ")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "kind"), [("- a\n- b", "list"), ("plain words", "str"), ("", "NoneType"), ("# nothing", "NoneType")]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    message = refusal(tmp_path, text)
    assert message.endswith(f"raycl.yaml holds {kind}, not a mapping: start it with 'workspace: ...'")


# Text of any kind but variables, which `load` would expand.
words = st.text(st.characters(exclude_characters="$", exclude_categories=["Cs"]), min_size=1, max_size=12)
shares = st.floats(0.01, 0.45)
splits = st.one_of(
    st.just({"kind": "leave_last_out"}),
    st.fixed_dictionaries({"kind": st.just("time"), "val_share": shares, "test_share": shares}),
)
features = st.lists(
    st.fixed_dictionaries({"column": words, "kind": st.sampled_from(["text", "multi"]), "separator": words}),
    max_size=2,
    unique_by=lambda feature: feature["column"],
)


@settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {
            "workspace": words,
            "logs": st.lists(st.fixed_dictionaries({"uri": words}), min_size=1, max_size=3),
            "event_weights": st.dictionaries(words, st.floats(1e-30, 1e30), max_size=3),
            "items": st.none() | st.fixed_dictionaries({"uri": words, "features": features}),
            "pairs": st.fixed_dictionaries({"split": splits}),
            "model": st.fixed_dictionaries({"hidden": st.lists(st.integers(1, 10**20), max_size=2)}),
            "train": st.fixed_dictionaries({"learning_rate": st.floats(1e-300, 1e300)}),
        }
    )
)
def test_a_config_that_is_dumped_loads_back_equal(tmp_path: Path, tree: dict[str, Any]) -> None:
    config = config_file.check(tree)
    assert load(tmp_path, config_file.dump(config)) == config


@pytest.mark.parametrize("path", sorted((ROOT / "jobs" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_good(path: Path) -> None:
    config = config_file.load(path)
    assert config_file.check(yaml.safe_load(config_file.dump(config))) == config


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """YAML would keep the second alone."""
    path = tmp_path / "raycl.yaml"
    path.write_text("workspace: w\nlogs: [{uri: l}]\ntrain: {epochs: 2}\nmodel: {dim: 8}\ntrain: {epochs: 3}\n")
    with pytest.raises(ConfigError, match=r"raycl\.yaml is not YAML at line 5: key 'train' is there twice$"):
        config_file.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pairs: {negative_events: skip}", "pairs.negative_events=skip: write a list, such as [skip]"),
        ("evaluation: {ks: 20}", "evaluation.ks=20: write a list, such as [20]"),
        (
            "items: {uri: i, features: [category]}",
            "items.features.0=category: write keys and values, such as {key: value}",
        ),
        ("pairs: {split: time}", "pairs.split=time: write keys and values, such as {key: value}"),
    ],
)
def test_a_value_of_a_wrong_form_is_told_the_right_one(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, f"{{workspace: w, logs: [{{uri: a}}], {text}}}").endswith(message)
