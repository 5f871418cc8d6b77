"""The code blocks of the documentation, as one who follows it would copy them.

Conventions, visible in the documents themselves:
- every fenced block names its language; `sh` is what a reader is meant to run, in the order of the page;
- a `yaml` block whose first line is a comment with a file name is that file;
- `<!-- not run: reason -->` in front of a block excuses it, `<!-- on a node -->` says where it is run.
Pure: text in, values out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
DOCUMENTS: Final = tuple(
    path.relative_to(PROJECT)
    for path in (
        PROJECT / "README.md",
        *sorted((PROJECT / "docs").glob("**/*.md")),
        PROJECT / "charts/sluice/README.md",
        PROJECT / "hack/testbed/README.md",
        PROJECT / "hack/images/README.md",
    )
)
_FENCE: Final = re.compile(r"^( *)```(\S*)\s*$")
_NOTE: Final = re.compile(r"^ *<!-- (not run: (?P<excuse>.+?)|(?P<node>on a node)) -->$")
_FILE: Final = re.compile(r"^# (\S+\.(?:yaml|yml))$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: where it stands, its language, its text, and what the note in front of it says."""

    document: str
    line: int
    language: str
    text: str
    excuse: str = ""
    on_a_node: bool = False

    @property
    def where(self) -> str:
        """For messages: file and line."""
        return f"{self.document}:{self.line}"

    @property
    def file(self) -> str:
        """Name of the file that the block is; empty when it is none."""
        found = _FILE.match(self.text.split("\n", 1)[0])
        return found.group(1) if found else ""


def blocks(text: str, *, document: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = text.splitlines()
    start, indent, language = 0, "", ""
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if not start:
            start, indent, language = number, fence.group(1), fence.group(2)
            continue
        body = "\n".join(entry.removeprefix(indent) for entry in lines[start : number - 1])
        before = next((entry for entry in reversed(lines[: start - 1]) if entry.strip()), "")
        note = _NOTE.match(before)
        excuse = (note.group("excuse") or "") if note else ""
        yield Block(document, start, language, body, excuse, bool(note and note.group("node")))
        start = 0


def read(document: Path) -> list[Block]:
    """The blocks of one of DOCUMENTS."""
    return list(blocks((PROJECT / document).read_text(), document=str(document)))
