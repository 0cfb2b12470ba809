"""What a pass is, and the text of pass pipelines: `cse,dce,fuse{max_nodes=40}`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Protocol, get_type_hints, runtime_checkable

from ...ir.errors import IRSyntaxError
from ...ir.graph import Graph


@runtime_checkable
class Pass(Protocol):
    """A graph transformation: a frozen dataclass whose fields are its options.

    Attributes:
        name: what pipelines and dumps call it.
    """

    name: ClassVar[str]

    def run(self, graph: Graph) -> Graph:
        """The transformed graph. Must not depend on anything but `graph` and the fields."""


def options_of(cls: type[Any]) -> dict[str, tuple[type, Any]]:
    """A pass's options: name → (type, default)."""
    hints = get_type_hints(cls)
    return {f.name: (hints[f.name], f.default) for f in dataclasses.fields(cls)}


def format_pass(p: Pass) -> str:
    """The pipeline text of one pass, with the options that differ from their defaults."""
    changed = [f"{name}={_value_text(getattr(p, name))}" for name, (_, default) in options_of(type(p)).items()
               if getattr(p, name) != default]
    return p.name + (f"{{{','.join(changed)}}}" if changed else "")


def format_pipeline(passes: Sequence[Pass]) -> str:
    """The text that `parse_pipeline` reads back to equal passes."""
    return ",".join(map(format_pass, passes))


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def parse_pipeline(text: str, registry: Mapping[str, type[Any]]) -> list[Pass]:
    """The passes that a pipeline text names.

    Args:
        text: `NAME` or `NAME{option=value,…}`, comma-separated; values are integers, floats, `true`, `false`,
            strings. An option without value is `true`.
        registry: passes by name.

    Raises:
        IRSyntaxError: with a caret, for a slip of syntax, an unknown pass or option, or a wrong kind of
            value.
    """
    passes: list[Pass] = []
    for item in _parse(text).children:
        name, *options = item.children
        cls = registry.get(str(name))
        if cls is None:
            raise _at(text, name, f"no pass is called {str(name)!r}{_meant(str(name), registry)}")
        known = options_of(cls)
        passes.append(cls(**dict(_option(text, name, o, known) for o in options)))
    return passes


def _parse(text: str) -> Any:
    """The syntax tree of a pipeline text."""
    from lark import Lark
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

    grammar = Path(__file__).with_name("pipeline.lark").read_text(encoding="utf-8")
    try:
        return Lark(grammar, parser="lalr", maybe_placeholders=False).parse(text)
    except UnexpectedInput as error:
        if isinstance(error, UnexpectedCharacters):
            raise _at(text, error, f"unexpected character {text[error.pos_in_stream or 0]!r}") from None
        if isinstance(error, UnexpectedToken) and error.token.type != "$END":
            raise _at(text, error, f"unexpected {str(error.token)!r}") from None
        raise IRSyntaxError("the pipeline ends too early", source=text, line=1, column=len(text) + 1,
                            file=_FILE) from None


def _option(text: str, name: Any, option: Any, known: Mapping[str, tuple[type, Any]]) -> tuple[str, Any]:
    """Name and value of one option of the pass called `name`."""
    key, *given = option.children
    if str(key) not in known:
        raise _at(text, key, f"pass {name} has no option {str(key)!r}{_meant(str(key), known)}")
    wanted = known[str(key)][0]
    value = _value(given[0]) if given else True
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        kind = _KINDS.get(wanted, wanted.__name__)
        raise _at(text, given[0] if given else key, f"option {key} of pass {name} takes {kind}")
    return str(key), value


_FILE = "<passes>"


def _at(text: str, where: Any, message: str) -> IRSyntaxError:
    """An error at a token (or at another error's position)."""
    return IRSyntaxError(message, source=text, line=where.line, column=where.column, file=_FILE)


_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}


def _value(token: Any) -> int | float | bool | str:
    match token.type:
        case "INT":
            return int(token)
        case "FLOAT":
            return float(token)
        case "TRUE" | "FALSE":
            return str(token.type) == "TRUE"
        case "STRING":
            return str(token)[1:-1]
        case _:
            return str(token)


def _meant(name: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(sorted(known))}" if known else "; it has none"
