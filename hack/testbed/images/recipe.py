"""What each image is made of, and the key that says whether an image made earlier is still the same.

Pure: file contents go in, names and hashes come out. Must not read files, run programs or import the rest of the
package.

Invariant: whatever can change an image's content is in its key; so an archive found under its key is the image that a
new build would make. A change of one program changes that program's key only.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: Import packages that every program ships.
SHARED_SOURCE = "api/sluice_api"


@dataclass(frozen=True, slots=True)
class Target:
    """One target of the Dockerfile.

    `extra` is the group of pyproject.toml whose libraries it carries (None: no libraries), `sources` the folders or
    files of the project that end up in it, `packages` whether it has a list of Debian packages of its own.
    """

    name: str
    extra: str | None
    sources: tuple[str, ...]
    packages: bool

    @property
    def is_program(self) -> bool:
        """Whether it is installed from Sluice's wheel (the traffic program is only copied)."""
        return SHARED_SOURCE in self.sources

    @property
    def image(self) -> str:
        """Full image name, as container runtimes resolve the short name `sluice/<target>:dev`."""
        return f"docker.io/sluice/{self.name}:dev"


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("operator", "operator", (SHARED_SOURCE, "operator/sluice_operator"), packages=False),
        Target("agent", "node", (SHARED_SOURCE, "node/sluice_node"), packages=True),
        Target("proxy", None, (SHARED_SOURCE, "proxy/sluice_proxy"), packages=False),
        Target("traffic", None, ("hack/testbed/traffic",), packages=True),
    )
}

#: Files besides the sources that decide how Sluice's wheel looks.
PROJECT_FILES = ("pyproject.toml", "README.md", "LICENSE")


def digest(parts: Iterable[bytes]) -> str:
    """Hash of a sequence of byte strings, 16 hex digits; each counts with its length, so that no two sequences meet."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()[:16]


def digest_files(files: Mapping[str, bytes]) -> str:
    """Hash of file contents by path, whatever order they were read in."""
    return digest(part for path in sorted(files) for part in (path.encode(), files[path]))


def sources_of(target: Target, project: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of `project` (by path in the checkout) that end up in the target's image or shape it."""
    prefixes = tuple(f"{source}/" for source in target.sources)
    wanted = {path: data for path, data in project.items() if path in target.sources or path.startswith(prefixes)}
    if target.is_program:
        wanted |= {path: project[path] for path in PROJECT_FILES}
    return wanted


def image_key(
    target: Target, *, base: str, wheels: str, recipe: Mapping[str, bytes], project: Mapping[str, bytes]
) -> str:
    """Key of a target's image: `base` and `wheels` are the keys of what it stands on, `recipe` is hack/images."""
    return digest(
        [
            target.name.encode(),
            base.encode(),
            wheels.encode(),
            digest_files(recipe).encode(),
            digest_files(sources_of(target, project)).encode(),
        ]
    )
