"""Read a study from YAML; a mistake becomes a line with the value, the rule and the way out."""

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from iqray.errors import StudyError
from iqray.filesystems import describe_uri
from iqray.study import Study


def read_study(path: Path, root: str | None = None) -> Study:
    """Read a study file.

    Args:
        path: a YAML file with the keys of `iqray.study.Study`.
        root: replaces the file's output root.

    Raises:
        StudyError: the file cannot be read, or does not describe a study.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StudyError(
            f"study file '{path}' cannot be read ({error.strerror}); give a YAML file such as "
            "jobs/studies/example.yaml"
        ) from error
    except UnicodeDecodeError as error:
        raise StudyError(
            f"study file '{path}' is not UTF-8 text ({error}); save it with that encoding"
        ) from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StudyError(f"study file '{path}' is not valid YAML: {_flatten(error)}") from error
    except ValueError as error:
        raise StudyError(
            f"study file '{path}' has a value that YAML takes for a date or a number, and that is "
            f"none ({error}); put it in quotes"
        ) from error
    return parse_study(content, root=root, source=str(path))


def parse_study(content: object, root: str | None = None, source: str = "the study") -> Study:
    """Check a mapping and make a study of it.

    Raises:
        StudyError: with one line per mistake.
    """
    if not isinstance(content, dict):
        raise StudyError(
            f"{source} must be a mapping of keys such as name, root, datasets; "
            f"it is a {type(content).__name__}"
        )
    if root is not None:
        content = {**content, "root": root}
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        lines = [_describe(entry) for entry in error.errors()]
        raise StudyError(f"{source}: " + "\n".join(lines)) from error


def _describe(entry: Any) -> str:
    location = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "extra_forbidden":
        return _describe_unknown_key(entry["loc"])
    if entry["type"] == "missing":
        return f"key '{location}' is missing; add it (jobs/studies/example.yaml shows each key)"
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "value_error":
        return message
    given = entry["input"]
    shown = describe_uri(given) if isinstance(given, str) else given
    return f"{location} is {shown!r}: {message}"


def _describe_unknown_key(location: tuple[int | str, ...]) -> str:
    *parents, key = location
    known = _list_keys(tuple(parents))
    close = difflib.get_close_matches(str(key), known, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    where = ".".join(str(part) for part in parents) or "a study"
    return f"unknown key '{key}' in {where}; the keys are {', '.join(known)}{hint}"


def _list_keys(parents: tuple[int | str, ...]) -> list[str]:
    model: Any = Study
    for part in parents:
        if isinstance(part, str) and part in getattr(model, "model_fields", {}):
            model = _find_model(model.model_fields[part].annotation)
    return list(getattr(model, "model_fields", {}))


def _find_model(annotation: Any) -> Any:
    """The pydantic model inside an annotation such as `tuple[Dataset, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = [_find_model(argument) for argument in get_args(annotation)]
    return next((model for model in models if model is not None), None)


def _flatten(error: BaseException) -> str:
    return " ".join(str(error).split())
