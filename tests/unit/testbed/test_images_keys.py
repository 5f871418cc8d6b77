"""An image is built again exactly when something that it is made of has changed."""

import json

import pytest

from testbed.images.archive import LayoutError, named_index
from testbed.images.base import base_key
from testbed.images.recipe import TARGETS, digest, image_key, sources_of
from testbed.images.wheels import wheels_key

RECIPE = {"Dockerfile": b"FROM base", "packages/base": b"python3", "packages/agent": b"nftables"}
PROJECT = {
    "pyproject.toml": b"[project]",
    "README.md": b"#",
    "LICENSE": b"Apache",
    "uv.lock": b"lock",
    "api/sluice_api/names.py": b"GROUP = 1",
    "operator/sluice_operator/main.py": b"operator",
    "node/sluice_node/main.py": b"agent",
    "proxy/sluice_proxy/main.py": b"proxy",
    "hack/testbed/traffic/hold.py": b"hold",
}


def keys(project: dict[str, bytes] = PROJECT, recipe: dict[str, bytes] = RECIPE, base: str = "b") -> dict[str, str]:
    return {
        name: image_key(target, base=base, wheels="w", recipe=recipe, project=project)
        for name, target in TARGETS.items()
    }


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("path", "targets"),
    [
        ("operator/sluice_operator/main.py", {"operator"}),
        ("node/sluice_node/main.py", {"agent"}),
        ("proxy/sluice_proxy/main.py", {"proxy"}),
        ("hack/testbed/traffic/hold.py", {"traffic"}),
        ("api/sluice_api/names.py", {"operator", "agent", "proxy"}),
        ("pyproject.toml", {"operator", "agent", "proxy"}),
    ],
)
def test_a_change_of_source_changes_the_images_that_hold_it(path: str, targets: set[str]) -> None:
    assert changed(keys(), keys({**PROJECT, path: b"changed"})) == targets


def test_a_renamed_file_is_a_change() -> None:
    moved = {
        path.replace("proxy/sluice_proxy/main", "proxy/sluice_proxy/other"): data for path, data in PROJECT.items()
    }
    assert changed(keys(), keys(moved)) == {"proxy"}


def test_a_change_of_the_recipe_or_of_the_base_changes_every_image() -> None:
    assert changed(keys(), keys(recipe={**RECIPE, "Dockerfile": b"FROM other"})) == set(TARGETS)
    assert changed(keys(), keys(base="other")) == set(TARGETS)


def test_an_image_holds_no_other_program() -> None:
    files = sources_of(TARGETS["agent"], PROJECT)
    assert set(files) == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "api/sluice_api/names.py",
        "node/sluice_node/main.py",
    }


def test_a_folder_with_a_longer_name_is_not_taken_for_the_source() -> None:
    assert "node/sluice_node_extra/x.py" not in sources_of(
        TARGETS["agent"], {**PROJECT, "node/sluice_node_extra/x.py": b""}
    )


def test_the_base_depends_on_the_packages_only() -> None:
    assert base_key({**RECIPE, "Dockerfile": b"FROM other"}) == base_key(RECIPE)
    assert base_key({**RECIPE, "packages/agent": b"nftables conntrack"}) != base_key(RECIPE)


def test_wheels_depend_on_the_lock_file_and_the_target() -> None:
    operator, agent = TARGETS["operator"], TARGETS["agent"]
    assert len({wheels_key(operator, b"1"), wheels_key(operator, b"2"), wheels_key(agent, b"1")}) == 3


def test_the_digest_tells_where_one_part_ends() -> None:
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])


def test_the_archive_names_the_image_as_runtimes_resolve_it() -> None:
    index = json.dumps({"schemaVersion": 2, "manifests": [{"digest": "sha256:1", "annotations": {"x": "y"}}]}).encode()
    named = json.loads(named_index(index, TARGETS["agent"].image))
    assert named["manifests"][0]["annotations"] == {
        "x": "y",
        "io.containerd.image.name": "docker.io/sluice/agent:dev",
        "org.opencontainers.image.ref.name": "dev",
    }


@pytest.mark.parametrize("index", [b"", b"[]", b"{}", b'{"manifests": []}', b'{"manifests": [{}, {}]}'])
def test_a_layout_of_other_than_one_image_is_refused(index: bytes) -> None:
    with pytest.raises(LayoutError):
        named_index(index, "docker.io/sluice/agent:dev")
