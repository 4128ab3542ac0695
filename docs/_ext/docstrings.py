"""Docstrings as reStructuredText, so that Sphinx shows what a person reads in the source.

Docstrings are plain text: formulas with bars and stars, code between double backquotes, roles, indented formulas, and
the sections ``Args``, ``Returns``, ``Raises``, ``Example``.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

_KEPT = re.compile(r"``.+?``|:[a-z:]+:`[^`]+`|\S*__\S*")
_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|obj):`~?([^`]+)`")
_BARE = re.compile(r":(func|class|meth|mod|attr|data|obj):`(\w+)`")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Example|Examples|Attributes|Note):$")
_OBJECT = re.compile(r"= <[^<>]*(?:<[^<>]*>)?[^<>]*>")
_RULE = re.compile(r"^\s*=+(\s+=+)+\s*$")


def escaped(text: str) -> str:
    r"""A line of plain text as reStructuredText; code and roles stay what they are.

    >>> print(escaped("mean(|AE(x) - x|) * w_ of ``x * y`` (arXiv:1703.10717)"))
    mean(\|AE(x) - x\|) \* w\_ of ``x * y`` (`arXiv:1703.10717 <https://arxiv.org/abs/1703.10717>`__)
    >>> print(escaped("two ``Term``s, and ``cuda: `` before the name"))
    two ``Term``\ s, and ``cuda:`` before the name
    """
    parts, end = [], 0
    for kept in _KEPT.finditer(text):
        code = _kept(kept[0])
        before, after = text[: kept.start()][-1:], text[kept.end() :][:1]
        marked = code.endswith("`")
        joined = ("\\ " if marked and before.isalnum() else "") + code + ("\\ " if marked and after.isalnum() else "")
        parts += [_plain(text[end : kept.start()]), joined]
        end = kept.end()
    return "".join([*parts, _plain(text[end:])])


def _plain(text: str) -> str:
    marked = re.sub(r"([*|`\\]|_(?=\W|$))", r"\\\1", text)
    return _ARXIV.sub(r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", marked)


def _kept(text: str) -> str:
    """Roles to private names lead nowhere: the name alone stands there as code."""
    if text.startswith("``"):
        return f"``{text.strip('`').strip()}``"
    role = _ROLE.fullmatch(text)
    if role is None:
        return text if text.startswith(":") else _plain(text).replace("__", "\\_\\_")
    private = any(part.startswith("_") for part in role[1].split("."))
    return f"``{role[1].rpartition('.')[2]}``" if private else text


def qualified(text: str, owner: Any) -> str:
    """Text with the full path in each role that has a bare name; a name that ``owner`` does not see becomes code.

    >>> qualified("see :func:`escaped` and :class:`Nowhere`", as_rst)
    'see :func:`_ext.docstrings.escaped` and ``Nowhere``'
    """
    return _BARE.sub(lambda role: _in_full(role, owner), text)


def _in_full(role: re.Match[str], owner: Any) -> str:
    owner = getattr(owner, "fget", owner)  # of a property
    module = owner if inspect.ismodule(owner) else inspect.getmodule(owner)
    names = vars(module) if module is not None else {}
    cls = names.get(getattr(owner, "__qualname__", "").partition(".")[0])
    found = names.get(role[2])
    if inspect.isclass(cls) and hasattr(cls, role[2]):
        path = f"{cls.__module__}.{cls.__qualname__}.{role[2]}"
    elif inspect.ismodule(found):
        path = found.__name__
    elif found is not None and hasattr(found, "__qualname__"):
        path = f"{found.__module__}.{found.__qualname__}"
    else:
        return f"``{role[2]}``"
    return f":{role[1]}:`{path}`"


def as_rst(lines: list[str]) -> list[str]:
    r"""A whole docstring: text is escaped, indented formulas become literal blocks, examples and tables stay.

    >>> as_rst(["Rows.", "", "    k = argmin |z - e|", "", "Args:", "    x: of *all*."])
    ['Rows.', '', '.. code-block:: text', '', '    k = argmin |z - e|', '', ':param x: of \\*all\\*.', '']
    """
    result: list[str] = []
    for name, body in _sections(lines):
        if name in {"Args", "Raises"}:
            field = "param" if name == "Args" else "raises"
            result += [f":{field} {key}: {escaped(text)}" for key, text in entries(body).items()]
        elif name in {"Returns", "Yields"}:
            result.append(f":{name.lower()}: {escaped(' '.join(' '.join(body).split()))}")
        elif name:
            result += [f".. rubric:: {name}", "", *_text(textwrap.dedent("\n".join(body)).splitlines())]
        else:
            result += _text(body)
            continue
        result.append("")
    return result


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Name and lines of each section; text outside of sections has no name."""
    name, body = "", list[str]()
    for line in lines:
        head = _SECTION.match(line)
        if head or (name and line[:1].strip()):
            yield name, body
            name, body = (head[1], []) if head else ("", [line])
        else:
            body.append(line)
    yield name, body


def entries(body: list[str]) -> dict[str, str]:
    """The entries of a section, each with all of its lines.

    >>> entries(["    x, y: two", "        numbers.", "    z: one."])
    {'x': 'two numbers.', 'y': 'two numbers.', 'z': 'one.'}
    """
    found: dict[str, str] = {}
    names: list[str] = []
    for line in body:
        head = re.match(r"^ {4}([\w.]+(?:, [\w.]+)*): ?(.*)$", line)
        if head:
            names = head[1].split(", ")
            found |= dict.fromkeys(names, head[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _text(lines: list[str]) -> list[str]:
    result: list[str] = []
    example = literal = announced = table = False
    for number, line in enumerate(lines):
        if line[:1].strip():
            literal, announced = False, line.endswith("::")
        example = line.strip() != "" and (example or line.strip().startswith(">>>"))
        rule = _RULE.match(line) is not None
        begins = line.startswith("    ") and not lines[number - 1].strip()
        if begins and not (literal or example or table):
            literal = True
            result += [] if announced else [".. code-block:: text", ""]
        result.append(line if example or literal or table or rule else escaped(line))
        if rule:  # the last one is followed by an empty line
            table = number + 1 < len(lines) and lines[number + 1].strip() != ""
    return result


def unannotated(signature: str) -> str:
    """A signature without the bounds of its options, which stand in a table.

    >>> unannotated("(x: Annotated[float, Gt(gt=0.0)] = 1.0, y: Sequence[Annotated[int, Ge(ge=1)]])")
    '(x: float = 1.0, y: Sequence[int])'
    >>> unannotated("(tell: Callable = <function Folder.<lambda>>, out: Any = <object object at 0x7f>)")
    '(tell: Callable = ..., out: Any = ...)'
    """
    signature = _OBJECT.sub("= ...", signature)
    start = signature.find("Annotated[")
    if start < 0:
        return signature
    depth, comma, end = 0, None, start + len("Annotated[")
    while depth >= 0:
        character = signature[end]
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0 and comma is None:
            comma = end
        end += 1
    inner = signature[start + len("Annotated[") : comma]
    return unannotated(signature[:start] + inner + signature[end:])


def on_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Sphinx asks for the text of one object, and takes what is left in ``lines``."""
    from _ext.parts import with_options

    lines[:] = with_options(obj, as_rst([qualified(line, obj) for line in lines]))


def on_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Sphinx asks for the signature of one object."""
    from _ext.parts import is_part

    if is_part(obj):
        return "", None
    return (None if signature is None else unannotated(signature)), returns
