"""The house holds: floors, no cycles, sizes, docstrings. A breach is named "file -> file"."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "smalti"

# Import only from a lower floor, or within one's own folder; imports inside functions and under TYPE_CHECKING count.
FLOORS = {
    9: ("__main__",),
    8: ("cli",),
    7.5: ("smalti", "bench", "app"),  # the front door: load, build, train
    7: ("assembly", "tokenizing"),
    6: ("engine", "report"),
    5: ("objectives", "evaluation"),
    4: ("metrics", "interop"),
    3: ("losses", "discriminators", "models"),
    2: ("bottlenecks", "extractors", "data"),
    1: ("quantizers", "tokens", "diagnosis"),
    0: ("nn", "outputs", "registry", "config", "writing", "explain", "pages"),
    -1: ("recipes",),  # data only
}
OPEN_FLOOR = 0  # the ground floor is one open room: its parts may import each other, in no cycle
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, for every module of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(module: str, path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                dotted = f"{base}.{alias.name}"
                if dotted != "smalti.__version__":  # a number, defined before anything is imported
                    yield dotted if dotted in modules() else base


@cache
def arrows() -> dict[str, tuple[str, ...]]:
    """Module -> the modules of the package that it imports."""
    return {
        module: tuple(sorted({name for name in imported_names(module, path) if name in modules()} - {module}))
        for module, path in modules().items()
    }


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def file_of(module: str) -> str:
    return modules()[module].relative_to(ROOT).as_posix()


def is_breach(source: str, target: str) -> bool:
    if room_of(source) == room_of(target):
        return False
    source_floor, target_floor = FLOOR_OF[room_of(source)], FLOOR_OF[room_of(target)]
    return target_floor >= source_floor and not source_floor == target_floor == OPEN_FLOOR


def test_every_room_has_a_floor() -> None:
    assert {room_of(module) for module in modules()} <= set(FLOOR_OF)


def test_arrows_point_down() -> None:
    breaches = [
        f"{file_of(source)} -> {file_of(target)}"
        for source, targets in arrows().items()
        for target in targets
        if is_breach(source, target)
    ]
    assert not breaches, "import only from a lower floor or from one's own folder:\n" + "\n".join(breaches)


def cycle_in(graph: dict[str, tuple[str, ...]]) -> list[str]:
    """The modules of one import cycle, first one repeated at the end; empty if there is none."""
    finished: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in finished:
            return []
        for target in graph[module]:
            if found := visit(target, [*trail, module]):
                return found
        finished.add(module)
        return []

    return next((found for module in graph if (found := visit(module, []))), [])


def test_no_import_cycle() -> None:
    found = cycle_in(arrows())
    assert not found, "import cycle: " + " -> ".join(file_of(module) for module in found)


def test_the_cycle_finder_finds_a_cycle() -> None:
    assert cycle_in({"a": ("b",), "b": ("c",), "c": ("b",)}) == ["b", "c", "b"]
    assert cycle_in({"a": ("b", "c"), "b": ("c",), "c": ()}) == []


def test_losses_and_models_do_not_know_each_other() -> None:
    never = {"losses": {"models", "discriminators", "bottlenecks"}, "models": {"losses"}, "report": {"engine"}}
    breaches = [
        f"{file_of(source)} -> {file_of(target)}"
        for source, targets in arrows().items()
        for target in targets
        if room_of(target) in never.get(room_of(source), set())
    ]
    assert not breaches, "\n".join(breaches)


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(node: Function) -> int:
    """Lines of a function, its docstring apart."""
    end = node.end_lineno or node.lineno
    lines = end - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


@pytest.mark.parametrize("module", sorted(modules()))
def test_files_and_functions_are_short(module: str) -> None:
    path = modules()[module]
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{file_of(module)}: {lines} lines, at most {MAX_FILE_LINES}"
    long = [
        f"{file_of(module)}:{node.lineno} {node.name}: {length(node)} lines, at most {MAX_FUNCTION_LINES}"
        for node in functions(tree_of(path))
        if length(node) > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def undocumented(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            overload = isinstance(node, Function) and any(
                isinstance(mark, ast.Name) and mark.id in {"overload", "override"} for mark in node.decorator_list
            )
            if not ast.get_docstring(node) and not overload:
                yield f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("module", sorted(modules()))
def test_everything_public_is_documented(module: str) -> None:
    tree = tree_of(modules()[module])
    assert ast.get_docstring(tree), f"{file_of(module)}: no docstring"
    missing = list(undocumented(tree.body, ""))
    assert not missing, f"{file_of(module)}: no docstring: {', '.join(missing)}"
