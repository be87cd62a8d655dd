"""The JSON schema of recipes, made from the dataclasses, for completion in editors.

Editors with the Even Better TOML extension (Taplo) read it from a comment `#:schema PATH` at the
top of a recipe. The schema says which keys there are, their types, values, defaults and effects;
what depends on the model and the data is checked by `run` itself.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from typing import Any, Literal, get_args, get_origin

from baldwhisper_convert.pipeline.recipe import Recipe

SCHEMA_FILE = "recipe.schema.json"

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def recipe_schema() -> dict[str, Any]:
    """The schema of a whole recipe, as JSON values (draft 7)."""
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "baldwhisper recipe"}
    return head | _table(Recipe)


def field_docs(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass, in one line; of its bases too."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for item, after in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                docs[item.target.id] = " ".join(str(after.value.value).split())
    return docs


def _table(kind: type) -> dict[str, Any]:
    """The schema of a dataclass."""
    hints, docs = typing.get_type_hints(kind), field_docs(kind)
    properties: dict[str, Any] = {}
    required = []
    for item in dataclasses.fields(kind):
        schema = _schema(hints[item.name])
        if item.name in docs:
            schema["description"] = docs[item.name]
        if item.default is not dataclasses.MISSING and item.default is not None:
            schema["default"] = _plain(item.default)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            required.append(item.name)
        properties[item.name] = schema
    table = {"type": "object", "properties": properties, "additionalProperties": False}
    return table | ({"required": required} if required else {})


def _schema(hint: Any) -> dict[str, Any]:
    """The schema of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [_schema(each) for each in arguments if each is not type(None)]
        return {"anyOf": kinds} if len(kinds) > 1 else kinds[0]
    if dataclasses.is_dataclass(hint):
        return _table(typing.cast(type, hint))
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        array: dict[str, Any] = {"type": "array", "items": _schema(arguments[0])}
        if arguments[-1] is not Ellipsis:
            array |= {"minItems": len(arguments), "maxItems": len(arguments)}
        return array
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    return {"type": _PLAIN[hint]}


def _plain(default: Any) -> Any:
    """A default as a JSON value."""
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        return dataclasses.asdict(default)
    return list(default) if isinstance(default, tuple) else default
