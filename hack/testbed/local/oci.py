"""OCI image archives made from plain files, for images that hold one static program.

The format is the OCI image layout (opencontainers/image-spec v1.1), which `ctr images import` reads.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MEDIA = "application/vnd.oci.image"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_archive(
    target: Path, name: str, *, files: Mapping[str, Path], entrypoint: Sequence[str], machine: str = "x86_64"
) -> None:
    """Write an archive with one image called `name` (with its tag) of one layer: `files` maps a path in the image to
    the file it is copied from; all are executable. `machine` is as uname(2) says it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, source in files.items():
            _add(tar, path.strip("/"), source.read_bytes(), mode=0o755)
    blobs: dict[str, bytes] = {}
    content = layer.getvalue()
    # not compressed: it is read once, on this machine
    layer_descriptor = _blob(blobs, f"{MEDIA}.layer.v1.tar", content)
    config = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_descriptor["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": _blob(blobs, f"{MEDIA}.config.v1+json", json.dumps(config).encode()),
        "layers": [layer_descriptor],
    }
    described = _blob(blobs, f"{MEDIA}.manifest.v1+json", json.dumps(manifest).encode())
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}
    index = {"schemaVersion": 2, "manifests": [{**described, "annotations": annotations}]}
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_suffix(".partial")
    with tarfile.open(aside, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", json.dumps(index).encode())
        for digest, data in blobs.items():
            _add(tar, f"blobs/sha256/{digest.removeprefix('sha256:')}", data)
    aside.rename(target)


def _blob(blobs: dict[str, bytes], media_type: str, data: bytes) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    blobs[digest] = data
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _add(tar: tarfile.TarFile, path: str, data: bytes, *, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(path)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))
