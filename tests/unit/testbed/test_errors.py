"""What a command line says when something fails: one sentence, a status that is not 0, and no traceback."""

import ast
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import binaries, commands, errors, prerequisites, tools
from testbed.cluster import ClusterError
from testbed.errors import TestbedError, ended

HACK = Path(commands.__file__).parents[1]


def fails(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    return shown.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TestbedError("helm failed", "try again"), "error: helm failed: try again"),
        (ClusterError("n1 is off", "`boot` it first"), "error: n1 is off: `boot` it first"),
        (TestbedError("helm failed", "see above", output="a\nb"), "error: helm failed: see above"),
        (TestbedError("two\nlines", "do\nthis"), "error: two lines: do this"),
        (FileNotFoundError(2, "No such file or directory", "uvx"), "No such file or directory: 'uvx'"),
        (ZeroDivisionError("division by zero"), "error: ZeroDivisionError: division by zero: this is a fault"),
        (KeyError("x"), "error: KeyError: 'x': this is a fault of the testbed; run it again with --debug"),
    ],
)
def test_whatever_fails_ends_in_one_sentence_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    assert ended(fails(error)) == 1
    assert said in last_line(capsys)


def test_a_failure_without_a_remedy_says_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(fails(TestbedError("that"))) == 1
    assert last_line(capsys) == f"error: that: {errors.ASK}"


def test_the_traceback_is_for_those_who_ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(errors.DEBUG, "1")
    assert ended(fails(TestbedError("helm failed", "try again"))) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.splitlines()[-1] == "error: helm failed: try again"


def test_what_succeeds_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(lambda: 0) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (
            ["/nowhere/helm", "list"],
            "/nowhere/helm list cannot be started (No such file or directory): "
            "see that /nowhere/helm is installed and may be executed",
        ),
        (["/"], "/ cannot be started (Permission denied): see that / is installed and may be executed"),
        (["sh", "-c", "exit 7"], "sh -c 'exit 7' ended with status 7: do that"),
        (["sleep", "60"], "sleep 60 did not end within 0.01 s: do that"),
    ],
)
def test_a_program_that_is_missing_or_fails_or_hangs_is_named(argv: list[str], what: str) -> None:
    with pytest.raises(ClusterError) as raised:
        commands.run(argv, remedy="do that", seconds=0.01 if argv[0] == "sleep" else None, error=ClusterError)
    assert raised.value.sentence() == what


def test_output_that_is_no_text_is_no_failure() -> None:
    assert commands.run(["printf", r"\377"]).stdout == "\ufffd"


def test_debians_programs_are_called_whatever_comes_first_on_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("true", "uv", "go"):
        (tmp_path / name).write_text("#!/bin/sh\necho wrong one; exit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commands.run(["true"]).stdout == ""
    assert not any(str(tool.path).startswith(str(tmp_path)) or not tool.path.is_absolute() for tool in tools.TOOLS)


@pytest.mark.parametrize("tool", tools.TOOLS, ids=lambda tool: tool.name)
def test_a_tool_that_cannot_be_fetched_is_named_with_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tool: tools.Tool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    installer = tmp_path / f"sluice/tools/installer-{sys.version_info.major}.{sys.version_info.minor}"
    (installer / "bin").mkdir(parents=True)
    (installer / "complete").touch()
    (installer / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    (installer / "bin" / "python").chmod(0o755)
    with pytest.raises(tools.ToolError, match="see that the Python package registry is reachable") as raised:
        tools.ensure(tool, say=lambda _: None)
    assert tool.version in raised.value.sentence()
    assert not tool.folder.exists()


def test_a_wheel_without_its_program_is_no_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tools, "_installer", lambda _say: Path("/bin/true"))
    with pytest.raises(tools.ToolError, match=r"the wheel of uv .* has no bin/uv"):
        tools.ensure(tools.UV, say=lambda _: None)


def test_every_tool_is_pinned_by_hashes() -> None:
    for tool in tools.TOOLS:
        assert "==" in tool.pins.read_text().split()[0]
        assert "--hash=sha256:" in tool.pins.read_text()


def test_a_package_that_cannot_be_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text('#!/bin/sh\n[ "$2" = update ]\n')
    apt.chmod(0o755)
    monkeypatch.setattr(prerequisites, "APT_GET", apt)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(prerequisites.PrerequisiteError, match=r"install ended with status 1.*yourself: runc gcc"):
        prerequisites.install(("runc", "gcc"), say=lambda _: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(prerequisites.PrerequisiteError, match="as root: apt-get install runc gcc"):
        prerequisites.install(("runc", "gcc"), say=lambda _: None)


def test_go_is_told_only_where_modules_come_from() -> None:
    inherited = {"GOPROXY": "https://mirror", "GOFLAGS": "-race", "GOOS": "plan9", "CGO_ENABLED": "1", "HOME": "/h"}
    given = binaries.go_environment(inherited)
    assert (given["GOPROXY"], given["GOFLAGS"], given["CGO_ENABLED"]) == ("https://mirror", "-mod=readonly", "0")
    assert "GOOS" not in given
    assert given["HOME"] == "/h"


# Who else may start programs: what streams, stays, or replaces this process. They are inside of hosts (no error of the
# family is theirs to raise), or turn OSError into one themselves.
STARTERS = {"testbed/commands.py", "testbed/interruption.py", "testbed/apiserver.py"}


def test_programs_are_started_in_one_place() -> None:
    found = set()
    for path in (HACK / "testbed").rglob("*.py"):
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        if any(
            isinstance(f, ast.Attribute)
            and isinstance(f.value, ast.Name)
            and f.value.id == "subprocess"
            and f.attr in ("run", "Popen", "check_output", "check_call", "call")
            for f in calls
        ):
            found.add(str(path.relative_to(HACK)))
    assert found == STARTERS


def test_every_error_of_the_testbed_is_of_the_family() -> None:
    inside = {"testbed/dns/message.py", "testbed/dns/zone.py", "testbed/traffic/target.py"}  # run inside hosts
    for path in (HACK / "testbed").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ClassDef) or not node.name.endswith("Error"):
                continue
            if str(path.relative_to(HACK)) not in inside and node.name != "TestbedError":
                assert [ast.unparse(base) for base in node.bases] == ["TestbedError"], f"{path}: {node.name}"
