"""The reference pages, written from the code at every build: the calls, the settings, the tables, the features.

They lie in `docs/reference/`, which is not kept. The verbs' page is sphinxcontrib-typer's. For calls,
sphinxcontrib-openapi is kept up as well, but it shows no field of a body.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from sizing import sizing

FOLDER: Final = "reference"
LINE: Final = "| {} |"


def setup(app: Any) -> dict[str, bool]:  # noqa: ANN401 (Sphinx's)
    """Write the pages once the source folder is known."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / FOLDER))
    return {"parallel_read_safe": True}


def write(folder: Path) -> None:
    """Write every page; one that says the same stays as it is, so that it is not built again."""
    folder.mkdir(exist_ok=True)
    pages = {folder / f"{page.__name__}.md": page for page in (calls, settings, tables, features, sizing)}
    for old in {*folder.iterdir()} - {*pages}:
        old.unlink()
    for path, page in pages.items():
        text = "\n".join(page()) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


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
    from features.transforms import catalogue_sheet

    sheet = catalogue_sheet()
    yield (
        f"# Features\n\n{sheet.title}, as `holdfast features list` prints them. Each is one expression, computed as of "
        "a moment: the same when training and when serving.\n"
    )
    yield from (f"- {note}" for note in sheet.notes)
    yield ""
    yield from _table(sheet.header, sheet.rows)


def _table(heads: tuple[str, ...], rows: Any) -> Iterator[str]:  # noqa: ANN401 (rows of text)
    rows = list(rows)
    if not rows:
        return
    yield LINE.format(" | ".join(heads))
    yield LINE.format(" | ".join("---" for _ in heads))
    yield from (LINE.format(" | ".join(_cell(cell) for cell in row)) for row in rows)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
