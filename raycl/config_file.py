"""From a YAML file and dotted overrides to a checked ``Config``, or to one line that says what to change."""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from raycl.config import Config
from raycl.config_values import Section
from raycl.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that a mapping gives twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key.value}' is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


Part = TypeVar("Part", bound=Section)
_ADDRESS = re.compile(r"(https?://)(\S*@)?([^\s?#]*)([?#]\S*)?")
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read ``path``, expand ``${NAME}`` and ``${NAME:-default}``, apply ``a.b=c`` overrides, and check the whole.

    Raises ConfigError, naming field, value and remedy.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {path} is not UTF-8 text; check the path") from error
    try:
        tree = _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise ConfigError(f"config file {path} is not YAML{line}: {getattr(error, 'problem', error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"config file {path} holds {type(tree).__name__}, not a mapping: start it with 'workspace: ...'"
        )
    return check(apply_overrides(expand(tree, os.environ), overrides))


def check(tree: Mapping[str, Any]) -> Config:
    """Build the typed tree from plain values; every problem is one line of the ConfigError."""
    return _validated(Config, tree, ())


def check_part(model: type[Part], name: str, plain: Any) -> Part:
    """Build the part of the tree that is called ``name`` alone; its problems are told as those of the whole."""
    return _validated(model, plain, (name,))


def _validated(model: type[Part], plain: Any, place: tuple[str, ...]) -> Part:
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        found = [{**problem, "loc": place + problem["loc"]} for problem in error.errors()]
        problems = dict.fromkeys(_explain(problem) for problem in found if not _follows(problem, found))
        raise ConfigError("\n".join(problems)) from error


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return ``tree`` with each ``dotted.path=value`` set, values read as YAML; list positions are numbers."""
    changed: dict[str, Any] = _copy(tree)
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise ConfigError(f"--set {override}: write it as dotted.path=value, for example --set train.epochs=3")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"--set {override}: the value is not YAML; quote it") from error
        assign(changed, path, value, f"--set {override}")
    return changed


def dump(config: Config) -> str:
    """The config as YAML that ``load`` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def assign(tree: Any, dotted: str, value: Any, asked: str) -> None:
    """Set the value at ``dotted`` within ``tree``; ConfigError names what ``asked`` for it where there is no place."""
    path = dotted.split(".")
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(tree, list):
            if not key.isdecimal() or int(key) >= len(tree):
                raise ConfigError(f"{asked}: '{key}' is no position in a list of {len(tree)}")
            position = int(key)
            if last:
                tree[position] = value
            else:
                tree = tree[position]
        elif isinstance(tree, dict):
            if last:
                tree[key] = value
            else:
                if tree.get(key) is None:
                    tree[key] = {}
                tree = tree[key]
        else:
            raise ConfigError(f"{asked}: '{'.'.join(path[:depth])}' is a plain value and has no '{key}'")


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """``value`` with every ``${NAME}`` and ``${NAME:-default}`` in it replaced; ConfigError where one is not set."""
    if isinstance(value, dict):
        return {key: expand(part, environment) for key, part in value.items()}
    if isinstance(value, list):
        return [expand(part, environment) for part in value]
    if not isinstance(value, str):
        return value

    def substitute(match: re.Match[str]) -> str:
        found = environment.get(match[1])
        if not found and match[2] is not None:
            return match[2]
        if found is None:
            raise ConfigError(
                f"{value}: environment variable {match[1]} is not set; export it or write ${{{match[1]}:-default}}"
            )
        return found

    return _VARIABLE.sub(substitute, value)


def _follows(problem: dict[str, Any], found: list[dict[str, Any]]) -> bool:
    """Whether a list is only called too short because its items have problems of their own."""
    place = problem["loc"]
    return any(other["loc"][: len(place)] == place and len(other["loc"]) > len(place) for other in found)


def _explain(problem: dict[str, Any]) -> str:
    location = list(problem["loc"])
    for place, kind_at in (["pairs", "split"], 2), (["loss", "terms"], 3), (["train", "pretrain", "terms"], 4):
        if location[: len(place)] == place:
            del location[kind_at : kind_at + 1]  # the kind of a union's member, which is no key of the config
    path = ".".join(map(str, location))
    message = str(problem["msg"]).removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            known = _keys_at(problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            return f"{path}={_short(problem['input'])}: unknown key; {remedy}"
        case "missing":
            return f"{path}: required and not set; add it to the config"
        case "tuple_type" | "list_type":
            return f"{path}={_short(problem['input'])}: write a list, such as [{_short(problem['input'])}]"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{path}={_short(problem['input'])}: write keys and values, such as {{key: value}}"
        case "union_tag_invalid":
            kinds = str(problem["ctx"]["expected_tags"]).replace("'", "")
            near = difflib.get_close_matches(str(problem["ctx"]["tag"]), kinds.split(", "), n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'? " if near else ""
            return f"{path}.kind={problem['ctx']['tag']}: unknown kind; {remedy}known kinds: {kinds}"
        case "union_tag_not_found":
            return f"{path}.kind: required and not set; add it to the config"
        case "value_error" if not location or "=" in message.split(" ", 1)[0]:
            return message
        case _:
            return f"{path}={_short(problem['input'])}: {message[0].lower()}{message[1:]}"


def _short(value: Any) -> str:
    # Of an address, who asks and what is asked for may be secrets.
    text = _ADDRESS.sub(lambda at: f"{at[1]}{'***@' if at[2] else ''}{at[3]}{'?***' if at[4] else ''}", str(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    """The keys that the section at ``location`` knows; ``location`` holds the kind of a union's member."""
    models: list[type[BaseModel]] = [Config]
    for part in location:
        if not isinstance(part, str):
            continue
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if fields:
            models = [model for field in fields for model in _models_in(field)] or models
        else:
            models = [model for model in models if part in typing.get_args(model.model_fields["kind"].annotation)]
    return list(dict.fromkeys(key for model in models for key in model.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
