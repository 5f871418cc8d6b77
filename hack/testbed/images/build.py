"""Builds Sluice's images into OCI archives, each only when something that it is made of has changed.

Layout of the cache folder: base-<key>/ (root.tar and .deb files), wheels-<target>-<key>/, pip-<key>/, program-<key>/
(Sluice's wheel), storage/ (the engine's layers), image-<target>-<key>.tar (the results).
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from testbed.images.archive import pack
from testbed.images.base import base_key, make_base
from testbed.images.engines import REGISTRY_BASE, Buildah, Engine, choose
from testbed.images.progress import Report, printed, timed
from testbed.images.recipe import PROJECT_FILES, TARGETS, Target, digest, digest_files, image_key, sources_of
from testbed.images.store import Store, default_root
from testbed.images.wheels import PIP, build_program, collect_libraries, collect_pip, wheels_key

PROJECT = Path(__file__).resolve().parents[3]
RECIPE = PROJECT / "hack" / "images"


Step = Callable[[str], AbstractContextManager[None]]
#: The step that makes the base, and roughly the seconds that each step takes on two cores.
BASE_STEP = "images: base"
BASE_SECONDS, FIRST_SECONDS, SECONDS = 60.0, 30.0, 12.0
#: Archives of a target that are kept: other checkouts of the project use the same cache.
KEPT = 8


def build(
    engine: str | None = None,
    targets: Sequence[str] = tuple(TARGETS),
    progress: Report = printed,
    step: Step = lambda _: nullcontext(),
) -> dict[str, Path]:
    """Build the targets that changed; returns each target's archive (image docker.io/sluice/<target>:dev).

    `engine` is docker or buildah; by default the one that works. `step` is entered for each step of `pending`. Raises
    TestbedError, or KeyError for a target that does not exist.
    """
    run = _run(engine, timed(progress), step)
    wanted = [TARGETS[name] for name in targets]
    # What is there is whole, so only a build has to wait for another build.
    if any(not run.archive(target).exists() for target in wanted):
        with run.store.locked(run.report):
            if run.lacks_base():
                with step(BASE_STEP):
                    run.base_folder()
            return {target.name: run.image(target) for target in wanted}
    run.report("unchanged")
    return {target.name: run.archive(target) for target in wanted}


def pending(engine: str | None = None, targets: Sequence[str] = tuple(TARGETS)) -> dict[str, float]:
    """The steps that `build` would take now, each with roughly its seconds; {} when nothing changed."""
    run = _run(engine, lambda _: None, lambda _: nullcontext())
    steps = [_step_of(target) for target in map(TARGETS.__getitem__, targets) if not run.archive(target).exists()]
    if not steps:
        return {}
    base = {BASE_STEP: BASE_SECONDS} if run.lacks_base() else {}
    return base | dict.fromkeys(steps, SECONDS) | {steps[0]: FIRST_SECONDS}


def _run(engine: str | None, report: Report, step: Step) -> "_Build":
    store = Store(default_root())
    chosen = choose(engine, storage=store.root / "storage", policy=RECIPE / "policy.json")
    project = _read_project()
    return _Build(store=store, engine=chosen, report=report, step=step, recipe=_read_recipe(), project=project)


def _step_of(target: Target) -> str:
    return f"images: {target.name}"


def clean(progress: Report = printed) -> None:
    """Remove the cache: every archive, base, wheel and layer."""
    store = Store(default_root())
    with store.locked(progress):
        store.unmount()
        for path in store.root.iterdir():
            if path.name != "lock":
                progress(f"removing {path}")
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass(frozen=True, slots=True)
class _Build:
    """One run: the files as they were read at its start, so that what is built is what the keys were computed from."""

    store: Store
    engine: Engine
    report: Report
    step: Step
    recipe: dict[str, bytes]
    project: dict[str, bytes]

    @property
    def base(self) -> str:
        """Key of the base: its name, or the hash of what it is made of."""
        return REGISTRY_BASE if self.engine.reaches_registry else base_key(self.recipe)

    def lacks_base(self) -> bool:
        """Has the base to be made first?"""
        return not self.engine.reaches_registry and not (self.store.root / f"base-{self.base}").exists()

    def archive(self, target: Target) -> Path:
        """Where the target's archive is, if it has been built."""
        wheels = wheels_key(target, self.project["uv.lock"])
        key = image_key(target, base=self.base, wheels=wheels, recipe=self.recipe, project=self.project)
        return self.store.root / f"image-{target.name}-{key}.tar"

    def image(self, target: Target) -> Path:
        """The target's archive, built now if it is not there."""
        archive = self.archive(target)
        if archive.exists():
            archive.touch()
            self.report(f"{target.name}: unchanged")
            return archive
        with self.step(_step_of(target)), self.store.work() as work:
            context = work / "context"
            self._lay_out(context, target)
            self.report(f"{target.name}: building")
            self.engine.build(
                target=target.name,
                dockerfile=RECIPE / "Dockerfile",
                context=context,
                base=self._base_image(),
                layout=work / "layout",
            )
            pack(work / "layout", image=target.image, into=work / "archive")
            (work / "archive").rename(archive)
        self.store.keep(archive, newest=KEPT)
        self.report(f"{target.name}: {archive.stat().st_size / 1e6:.0f} MB in {archive}")
        return archive

    def _base_image(self) -> str:
        if not isinstance(self.engine, Buildah):
            return self.base
        name = f"localhost/sluice/base:{self.base}"
        self.engine.import_base(self.base_folder() / "root.tar", name)
        return name

    def base_folder(self) -> Path:
        """Where the base's files are, made now if they are not there."""
        targets = tuple(target.name for target in TARGETS.values() if target.packages)
        return self.store.entry(
            f"base-{self.base}",
            lambda folder: make_base(folder, packages=RECIPE / "packages", targets=targets, report=self.report),
        )

    def _lay_out(self, context: Path, target: Target) -> None:
        """Make the context: tools, and what the target installs."""
        pip = self.store.entry(f"pip-{digest([PIP.encode()])}", collect_pip)
        shutil.copytree(pip, context / "tools" / "pip")
        _write(context, {path: data for path, data in self.recipe.items() if path.startswith("tools/")})
        if target.extra:
            libraries = self.store.entry(
                f"wheels-{target.name}-{wheels_key(target, self.project['uv.lock'])}",
                lambda folder: collect_libraries(folder, target=target, project=PROJECT),
            )
            shutil.copytree(libraries, context / "wheels" / target.name)
        if target.packages:
            folder = f"packages/{target.name}"
            _write(
                context, {f"{folder}/list": self.recipe[folder], f"{folder}/install": self.recipe["packages/install"]}
            )
            if not self.engine.reaches_registry:
                shutil.copytree(self.base_folder() / target.name, context / folder, dirs_exist_ok=True)
        if target.is_program:
            shutil.copytree(self._program(), context / "program")
        else:
            files = sources_of(target, self.project)
            _write(context / target.name, {path.removeprefix("hack/"): data for path, data in files.items()})

    def _program(self) -> Path:
        """The folder of Sluice's wheel, from the sources as they were read at the start of the run."""
        sources = {path: data for path, data in self.project.items() if not path.startswith("hack/")}

        def make(folder: Path) -> None:
            with self.store.work() as snapshot:
                _write(snapshot, sources)
                build_program(folder, snapshot=snapshot)

        return self.store.entry(f"program-{digest_files(sources)}", make)


def _read(folder: Path) -> dict[str, bytes]:
    """The files under `folder` by their path in it, without Python's compiled ones."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _read_recipe() -> dict[str, bytes]:
    """The files of hack/images that shape an image."""
    return {path: data for path, data in _read(RECIPE).items() if path != "README.md"}


def _read_project() -> dict[str, bytes]:
    """The project's files that can end up in an image or decide what does."""
    files = {name: (PROJECT / name).read_bytes() for name in (*PROJECT_FILES, "uv.lock")}
    for source in sorted({source for target in TARGETS.values() for source in target.sources}):
        path = PROJECT / source
        if path.is_dir():
            files |= {f"{source}/{name}": data for name, data in _read(path).items()}
        elif path.exists():
            files[source] = path.read_bytes()
    return files


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
