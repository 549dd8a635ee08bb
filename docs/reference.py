"""The reference pages, written from the code at every build: the verbs, the calls, the settings, the tables, features.

They lie in `docs/reference/`, which is not kept.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

FOLDER: Final = "reference"
LINE: Final = "| {} |"


def setup(app: Any) -> dict[str, bool]:  # noqa: ANN401 (Sphinx's)
    """Write the pages once the source folder is known."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / FOLDER))
    return {"parallel_read_safe": True}


def write(folder: Path) -> None:
    """Write every page; one that says the same stays as it is, so that it is not built again."""
    folder.mkdir(exist_ok=True)
    for name, page in {
        "verbs": verbs,
        "calls": calls,
        "settings": settings,
        "tables": tables,
        "features": features,
    }.items():
        path, text = folder / f"{name}.md", "\n".join(page()) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def verbs() -> Iterator[str]:
    """Describe every verb as `--help` does."""
    from typer.main import get_command

    from holdfast import app

    yield "# Verbs\n\nWhat `--help` says, verb by verb. Each prints one table or line; its exit code is the verdict."
    yield from _verb(get_command(app), ())


def _verb(command: Any, path: tuple[str, ...]) -> Iterator[str]:  # noqa: ANN401 (Click's)
    children = getattr(command, "commands", None)
    if path:
        yield f"\n{'#' * (1 + len(path))} holdfast {' '.join(path)}\n\n{_plain(command.help)}\n"
    if children is not None:
        for name, child in children.items():
            yield from _verb(child, (*path, name))
        return
    options = [one for one in command.params if one.name != "help"]
    yield from _table(("option", "", "default"), (_option(one) for one in options))


def _option(option: Any) -> tuple[str, str, str]:  # noqa: ANN401 (Click's)
    names = (
        " ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        if option.opts[0][0] == "-"
        else f"`{option.name.upper()}`"
    )
    default = option.default if isinstance(option.default, str | int | float | Path) and option.default != "" else ""
    shown = "" if isinstance(default, bool) else str(default)
    return names, _plain(getattr(option, "help", "")), f"`{shown}`" if shown else ""


def calls() -> Iterator[str]:
    """Describe every call of the service by its OpenAPI document."""
    from serving.app import create_app
    from serving.keys import Keyring

    nobody = Keyring(lambda: Path("none"))
    document = create_app(list, keyring=nobody, now=lambda: datetime(2026, 1, 1, tzinfo=UTC)).openapi()
    yield "# Calls\n\nWhat `GET /openapi.json` says, the service's own. Errors are problem documents (RFC 9457)."
    for address, methods in document["paths"].items():
        for method, call in methods.items():
            yield f"\n## {method.upper()} {address}\n\n{call.get('description', '')}\n"
            yield from _call(call, document)


def _call(call: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    named = [(f"`{one['name']}`", one["in"], one.get("description", "")) for one in call.get("parameters", ())]
    if named:
        yield from _table(("parameter", "in", ""), named)
    body = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        yield "\nBody:\n"
        yield from _schema(body, document)
    for code, answer in sorted(call["responses"].items()):
        found = answer.get("content", {}).get("application/json", {}).get("schema")
        if found and code.startswith("2"):
            yield f"\nAnswer, {code}:\n"
            yield from _schema(found, document)
    refused = ", ".join(code for code in sorted(call["responses"]) if not code.startswith("2"))
    if refused:
        yield f"\nRefused with: {refused}."


def _schema(schema: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    """Lay out an object's fields, then those of the objects in it."""
    schema = _resolved(schema, document)
    required = set(schema.get("required", ()))
    rows = (
        (f"`{name}`", _type(field, document), "needed" if name in required else "", field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    )
    yield from _table(("field", "type", "", ""), rows)
    parts = {part["title"]: part for field in schema.get("properties", {}).values() for part in _parts(field, document)}
    for name, part in parts.items():
        yield f"\n{name}:\n"
        yield from _schema(part, document)


def _parts(field: dict[str, Any], document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    field = _resolved(field, document)
    if "properties" in field:
        yield field
    for inner in (*field.get("anyOf", ()), *([field["items"]] if "items" in field else ())):
        yield from _parts(inner, document)


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _type(field: dict[str, Any], document: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(one, document) for one in field["anyOf"]))
    if "const" in field or "enum" in field:
        return " or ".join(f"`{json.dumps(one)}`" for one in field.get("enum", [field.get("const")]))
    field = _resolved(field, document)
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}), document)}"
    return str(
        field.get("title", "") if field.get("type") == "object" and "properties" in field else field.get("type", "any")
    )


def settings() -> Iterator[str]:
    """Describe every key of holdfast.toml."""
    from features.programme import Programme

    yield (
        "# Settings\n\n`holdfast.toml` in the home. Every key has a default, an unknown one is refused, and all errors "
        "are said at once. Money is in minor units."
    )
    yield from _section(Programme, "")


def _section(model: type[BaseModel], name: str) -> Iterator[str]:
    if name:
        yield f"\n## [{name}]\n\n{(model.__doc__ or '').strip()}\n"
    inner, rows = list[tuple[type[BaseModel], str]](), list[tuple[str, str, str]]()
    for key, field in model.model_fields.items():
        found, repeated = _inner(field.annotation)
        if found is not None and key != "tiers":
            inner.append((found, f"{name}.{key}".strip(".") + (".NAME" if repeated else "")))
            continue
        default = field.get_default(call_default_factory=True)
        shown = "" if field.is_required() or default is None else f"`{_written(default)}`"
        rows.append((f"`{key}`", field.description or "", shown))
    yield from _table(("key", "", "default"), rows)
    for found, path in inner:
        yield from _section(found, path)


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, bool]:  # noqa: ANN401 (any annotation)
    """Find the model a key holds, and whether it holds several by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for part in getattr(annotation, "__args__", ()):
        if (found := _inner(part)[0]) is not None:
            return found, True
    return None, False


def _written(value: Any) -> str:  # noqa: ANN401 (any default)
    if isinstance(value, tuple):
        return json.dumps([one.model_dump() if isinstance(one, BaseModel) else one for one in value])
    return json.dumps(value, default=str)


def tables() -> Iterator[str]:
    """Describe the tables a company brings."""
    from features.schema import TABLES

    yield (
        "# Tables\n\nWhat a company brings; `members` and `transactions` are needed. Money is in minor units, times "
        "say their zone or the mapping does, further columns are kept as they come. A row that comes again, by key, "
        "replaces the one that stands."
    )
    for table in TABLES.values():
        key = ", ".join(f"`{name}`" for name in table.key)
        yield f"\n## {table.name}\n\n{'Needed. ' if table.required else ''}Its key: {key or 'none, rows may repeat'}.\n"
        rows = (
            (f"`{c.name}`", c.kind + (", may be negative" if c.signed else ""), "needed" if c.required else "")
            for c in table.columns
        )
        yield from _table(("column", "kind", ""), rows)


def features() -> Iterator[str]:
    """Describe every feature of the catalogue."""
    from features.catalogue.entries import CATALOGUE

    yield (
        "# Features\n\nEach is one expression in `features/transforms.py`, computed as of a moment: the same when "
        "training and when serving."
    )
    yield from _table(("feature", "", "unit"), ((f"`{f.name}`", f.meaning, f.unit) for f in CATALOGUE.values()))


def _table(heads: tuple[str, ...], rows: Any) -> Iterator[str]:  # noqa: ANN401 (rows of text)
    rows = list(rows)
    if not rows:
        return
    yield LINE.format(" | ".join(heads))
    yield LINE.format(" | ".join("---" for _ in heads))
    yield from (LINE.format(" | ".join(_cell(cell) for cell in row)) for row in rows)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _plain(text: str | None) -> str:
    return (text or "").replace("\\[", "[").replace("[bold]", "").replace("[/]", "")
