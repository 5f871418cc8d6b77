"""What the documentation tells a reader to type is there to be typed: blocks that a test runs, targets, links."""

import re
from pathlib import Path

import pytest
import yaml
from tests.documented import DOCUMENTS, PROJECT, Block, blocks, read

LANGUAGES = {"sh", "yaml", "text", "lua", "python", "json"}
PAGE = """
Text.

<!-- not run: needs a registry -->

```sh
push it
```

  ```yaml
  # pool.yaml
  kind: EgressPool
  ```

<!-- on a node -->
```sh
nft list tables
```
```text
drawing
```
"""


def test_blocks_are_read_with_their_notes() -> None:
    push, pool, node, drawing = blocks(PAGE, document="page.md")
    assert push == Block("page.md", 6, "sh", "push it", excuse="needs a registry")
    assert (pool.file, yaml.safe_load(pool.text)) == ("pool.yaml", {"kind": "EgressPool"})
    assert (node.text, node.on_a_node) == ("nft list tables", True)
    assert (drawing.language, drawing.excuse, drawing.on_a_node) == ("text", "", False)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_block_says_what_it_is(document: Path) -> None:
    for block in read(document):
        assert block.language in LANGUAGES, f"{block.where}: write what it is after the fence, one of {LANGUAGES}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_no_command_hides_in_an_indented_block_where_no_test_would_run_it(document: Path) -> None:
    fenced = False
    for number, line in enumerate((PROJECT / document).read_text().splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        hidden = not fenced and re.match(r"^    (kubectl|helm|make|nft|python3?|export|eval) ", line)
        assert not hidden, f"{document}:{number}: put it into a fenced block: {line.strip()}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z-]+)`", (PROJECT / document).read_text()))
    assert named <= targets, f"{document} names {named - targets}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_within_the_project_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", (PROJECT / document).read_text()):
        assert (PROJECT / document).parent.joinpath(target).exists(), f"{document} links to {target}"
