"""Turns an OCI image layout into the archive that container runtimes import, under the image's full name.

An engine writes the layout (a folder); the name is set here, the same for every engine, in the annotation that
containerd's import reads first (io.containerd.image.name) and in the standard one (org.opencontainers.image.ref.name).
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError


class LayoutError(TestbedError):
    """A folder is not an OCI layout of exactly one image."""


def named_index(index: bytes, image: str) -> bytes:
    """The index.json of a layout with its only image called `image`. Raises LayoutError."""
    try:
        document: dict[str, Any] = json.loads(index)
        (manifest,) = document["manifests"]
    except (ValueError, KeyError, TypeError) as error:
        raise LayoutError(
            f"the engine's index.json does not list exactly one image ({error})",
            "remove the engine's layers with `python -m testbed.images clean`, and build again",
        ) from error
    names = {"io.containerd.image.name": image, "org.opencontainers.image.ref.name": image.rpartition(":")[2]}
    manifest["annotations"] = {**manifest.get("annotations", {}), **names}
    return json.dumps(document).encode()


def complete_layout(layout: Path) -> None:
    """Make a layout of a folder whose blobs/sha256 is an image in the `dir` format: blobs, manifest.json, version."""
    blobs = layout / "blobs" / "sha256"
    (blobs / "version").unlink()
    manifest = (blobs / "manifest.json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    (blobs / "manifest.json").rename(blobs / digest)
    entry = {"mediaType": json.loads(manifest)["mediaType"], "digest": f"sha256:{digest}", "size": len(manifest)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def pack(layout: Path, *, image: str, into: Path) -> None:
    """Write the layout as one tar archive, its image called `image`. Raises LayoutError."""
    index = named_index((layout / "index.json").read_bytes(), image)
    with tarfile.open(into, "w") as archive:
        _add(archive, "oci-layout", (layout / "oci-layout").read_bytes())
        _add(archive, "index.json", index)
        for blob in sorted((layout / "blobs").glob("*/*")):
            archive.add(blob, arcname=str(blob.relative_to(layout)), filter=_anonymous)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same file without the time and the owner that it had here."""
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
