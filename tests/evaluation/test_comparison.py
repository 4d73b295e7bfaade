"""Two evaluations of the tiny workspace, compared; and what is refused a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from raycl import cli, config_file, evaluation, journey, lineage
from raycl.config import Config
from raycl.errors import ConfigError, InputError
from raycl.evaluation import comparison, finished
from raycl.evaluation.comparison import Evaluation
from raycl.evaluation.protocol import Protocol, require_same
from tests import tiny as builders


def evaluated(config: Config) -> Evaluation:
    return Evaluation(lineage.evaluation(config, journey.workspace(config)))


@pytest.fixture(scope="module")
def other(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Other towers on the same pairs."""
    config = builders.copied(tiny, tmp_path_factory.mktemp("other"))
    config = builders.changed(config, "train", learning_rate=0.001, epochs=1)
    journey.train(config, lambda _: None)
    journey.evaluate(config)
    return config


def test_differences_are_those_of_the_means_and_of_the_same_users(tiny: Config, other: Config) -> None:
    first, second = evaluated(tiny), evaluated(other)
    found = evaluation.compare(first, second)
    values = [
        {(row["segment"], row["metric"]): row["value"] for row in one.metrics.filter(model="towers").to_dicts()}
        for one in (first, second)
    ]
    assert found.height > 90
    for row in found.to_dicts():
        key = row["segment"], row["metric"]
        assert (row["first"], row["second"]) == pytest.approx((values[0][key], values[1][key]))
        assert row["difference"] == pytest.approx(row["second"] - row["first"])
        assert row["low"] <= row["difference"] + 1e-9
        assert row["high"] >= row["difference"] - 1e-9
        assert row["p"] <= row["p_corrected"] <= 1.0
    assert not [name for name in found["metric"].unique() if name.startswith(("diversity", "coverage", "gini"))]


def test_a_run_does_not_differ_from_itself(tiny: Config) -> None:
    found = evaluation.compare(evaluated(tiny), evaluated(tiny))
    assert found.filter(pl.col("difference") != 0.0).height == 0
    assert found.filter(pl.col("p") < 1.0).height == 0


def test_a_baseline_is_compared_with_towers_and_rows_are_chosen(tiny: Config) -> None:
    one = evaluated(tiny)
    found = evaluation.compare(
        one,
        one,
        models=("towers", "item_knn"),
        metrics=("ndcg_at_10", "recall_at_3"),
        segments=("all", "users.age=old"),
    )
    assert found.select("segment", "metric").rows() == [
        (segment, metric) for segment in ("all", "users.age=old") for metric in ("recall_at_3", "ndcg_at_10")
    ]
    sides = [
        one.users(name).filter(items="all").sort("user")["ndcg_at_10"].to_numpy() for name in ("towers", "item_knn")
    ]
    assert found.filter(segment="all", metric="ndcg_at_10")["difference"][0] == pytest.approx(
        float(np.mean(sides[1] - sides[0])), abs=1e-6
    )


def test_results_of_other_protocols_are_refused_by_the_field_that_differs(tiny: Config, tmp_path: Path) -> None:
    config = builders.copied(tiny, tmp_path)
    asked = {"resamples": 100, "baselines": {"names": []}, "perturbed_share": 0.0}
    for values, told in (
        ({"part": "val"}, "part: test and val"),
        ({"ks": [3]}, "ks: 3, 10 and 3; metrics: "),
        ({"new_below": 2}, "segments: "),
    ):
        changed = builders.changed(config, "evaluation", **values, **asked)
        journey.evaluate(changed)
        with pytest.raises(InputError, match="different protocols and cannot be compared") as refused:
            evaluation.compare(evaluated(tiny), evaluated(changed))
        assert f"({told}" in str(refused.value)


def test_resamples_and_baselines_are_no_part_of_the_protocol(tiny: Config, tmp_path: Path) -> None:
    config = builders.copied(tiny, tmp_path)
    changed = builders.changed(config, "evaluation", resamples=101, baselines={"names": []})
    journey.evaluate(changed)
    found = evaluation.compare(evaluated(tiny), evaluated(changed), metrics=("recall_at_3",), segments=("all",))
    assert found["difference"].to_list() == [0.0]


def test_every_field_of_the_protocol_is_compared(tiny: Config) -> None:
    protocol = evaluated(tiny).protocol
    for field in protocol.to_json():
        changed = Protocol.from_json(protocol.to_json() | {field: "other" if field != "split" else {"kind": "other"}})
        with pytest.raises(InputError, match=rf"\({field}: "):
            require_same(protocol, changed)
        assert changed.name != protocol.name
    require_same(protocol, Protocol.from_json(json.loads(json.dumps(protocol.to_json()))))


def test_other_users_are_refused(tiny: Config, other: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = evaluated(tiny), evaluated(other)
    whole = second.users()
    monkeypatch.setattr(
        Evaluation, "users", lambda self, _: whole if self is first else whole.filter(pl.col("user") > 1)
    )
    with pytest.raises(InputError, match=r"not over the same users: \d rows are in one alone, one of them of user 1;"):
        evaluation.compare(first, second)


def test_unknown_names_are_told_with_the_known_ones(tiny: Config) -> None:
    one = evaluated(tiny)
    with pytest.raises(ConfigError, match="metric=mpa_at_3 cannot be compared: use some of recall_at_3, "):
        evaluation.compare(one, one, metrics=("mpa_at_3",))
    with pytest.raises(ConfigError, match=r"segment=users\.age=young is in neither evaluation: use some of all, "):
        evaluation.compare(one, one, segments=("users.age=young",))
    with pytest.raises(ConfigError, match="correction=bonferroni is none: use holm or benjamini_hochberg"):
        comparison.correction_of("bonferroni")


def test_evaluations_are_found_by_folder_and_by_config(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(config_file.dump(tiny))
    version = lineage.evaluation(tiny, journey.workspace(tiny))
    folder = f"{tiny.workspace}/evaluations/{version.name}"
    for place in (folder, f"{folder}/", str(tmp_path / "tiny.yaml")):
        assert evaluation.load(place).version.name == version.name
    with pytest.raises(InputError, match="has no finished evaluations of this config"):
        evaluation.load(str(tmp_path / "tiny.yaml"), "evaluation.ks=[4]")
    with pytest.raises(InputError, match="is no evaluation: name a folder such as workspace/evaluations/"):
        finished.load(f"{tiny.workspace}/towers/x")
    with pytest.raises(InputError, match="no such finished version of evaluations"):
        finished.load(f"{tiny.workspace}/evaluations/x")
    with pytest.raises(ConfigError, match="name a config file"):
        evaluation.load(folder, "evaluation.ks=[4]")


def test_the_notebook_finds_what_the_command_made(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(config_file.dump(tiny))
    found = evaluation.run(str(tmp_path / "tiny.yaml"))
    assert found.metrics.columns == ["model", "segment", "metric", "value", "low", "high", "users"]
    assert found.users().height > builders.NUM_USERS
    assert found.protocol.part == "test"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_commands_print_tables_intervals_and_the_protocol(
    tiny: Config, other: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for name, config in (("a", tiny), ("b", other)):
        (tmp_path / f"{name}.yaml").write_text(config_file.dump(config))
    code, out, _ = run(capsys, "evaluate", str(tmp_path / "a.yaml"))
    assert code == 0
    protocol = evaluated(tiny).protocol.name
    for words in (
        "towers and baselines",
        "rp3beta",
        "segments, towers",
        "items.age=old",
        f"protocol {protocol}",
        "ties: of",
    ):
        assert words in out
    files = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    code, out, _ = run(capsys, "compare", *files, "--metric", "ndcg_at_3", "--segment", "all")
    assert code == 0
    for words in ("ndcg_at_3", "p_corrected", "holm over 1 rows", f"protocol {protocol}"):
        assert words in out
    code, out, _ = run(capsys, "compare", *files, "--with", "rp3beta", "--correction", "benjamini_hochberg", "--json")
    assert (code, json.loads(out)["protocol"]) == (0, protocol)
    code, _, err = run(capsys, "compare", *files, "--correction", "none")
    assert (code, "raycl: correction=none is none" in err) == (2, True)
