"""What docs/SECURITY.md says of the code is so."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import trustmine
from trustmine import osv

CODE = sorted(Path(trustmine.__file__).parent.rglob("*.py"))
NEVER = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "commands", "imp"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "system", "popen", "enable_load_extension", "load_extension"}
MAY_START_PROGRAMS = {"gitcli.py", "doctor.py", "demo/__init__.py"}  # git, and nothing else


def _nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for path in CODE:
        name = path.relative_to(Path(trustmine.__file__).parent).as_posix()
        yield from ((name, node) for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, kind))


def _imports() -> Iterator[tuple[str, str]]:
    for name, node in _nodes(ast.Import):
        assert isinstance(node, ast.Import)
        yield from ((name, alias.name.split(".")[0]) for alias in node.names)
    for name, node in _nodes(ast.ImportFrom):
        assert isinstance(node, ast.ImportFrom)
        yield name, (node.module or "").split(".")[0]


def test_no_format_that_makes_objects_is_read() -> None:
    assert len(CODE) > 80
    assert [found for found in _imports() if found[1] in NEVER] == []
    # Of YAML only its base types: text, lists and maps.
    assert {name for name, module in _imports() if module == "yaml"} == {"osv.py"}
    assert osv._LOADER in (yaml.BaseLoader, getattr(yaml, "CBaseLoader", None))
    calls = [ast.unparse(node) for name, node in _nodes(ast.Call) if name == "osv.py"]
    assert [call for call in calls if call.startswith("yaml.")] == ["yaml.load(text, _LOADER)"]


def test_nothing_is_evaluated_and_no_shell_is_used() -> None:
    found = []
    for name, node in _nodes(ast.Call):
        assert isinstance(node, ast.Call)
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        called = node.func.attr if isinstance(node.func, ast.Attribute) else called
        is_pattern = isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "re.compile"
        if (called in NEVER_CALLED and not is_pattern) or any(keyword.arg == "shell" for keyword in node.keywords):
            found.append((name, node.lineno))
    assert found == []


def test_only_git_is_started_and_only_where_it_may_be() -> None:
    assert {name for name, module in _imports() if module == "subprocess"} == MAY_START_PROGRAMS


@pytest.mark.parametrize("claim", ["127.0.0.1", "0.0.0.0", "query_only", "mode=ro", "ten seconds"])
def test_the_page_speaks_of_what_is_in_the_code(claim: str) -> None:
    page = (Path(__file__).parent.parent / "docs" / "SECURITY.md").read_text(encoding="utf-8")
    assert claim in page
    served = (Path(trustmine.__file__).parent / "web" / "serve.py").read_text(encoding="utf-8")
    assert {"ten seconds": '"sql_time_limit_ms": 10_000'}.get(claim, claim) in served
