"""Certificates and kubeconfigs of a local cluster: one authority, made anew for each cluster.

`SUBJECTS` and `subject_alternatives` are the whole of who is who (kubernetes.io, "PKI certificates and requirements").
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testbed.local.plan import CLUSTER_DOMAIN, CONTROL_PLANE, Address, Plan

VALID = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a certificate is for: file name, common name (the user), organization (the group), where it is served."""

    file: str
    user: str
    group: str = ""
    names: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()


def subjects(plan: Plan) -> tuple[Subject, ...]:
    """Every certificate of the cluster but the authority's own."""
    api_names = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
    )
    api_addresses = (*plan.host(CONTROL_PLANE).lan, plan.link_addresses[1].ip, *plan.api_service)
    return (
        Subject("apiserver", "kube-apiserver", names=api_names, addresses=api_addresses),
        Subject("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
        Subject("admin", "admin", "system:masters"),
        Subject("kube-controller-manager", "system:kube-controller-manager"),
        Subject("kube-scheduler", "system:kube-scheduler"),
        Subject("kube-proxy", "system:kube-proxy"),
        *(Subject(f"kubelet-{n}", f"system:node:{n}", "system:nodes", (n,), plan.host(n).lan) for n in plan.nodes),
    )


def write(folder: Path, plan: Plan) -> None:
    """Make the authority, every certificate with its key, and the key pair that signs service account tokens."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{plan.options.name}-testbed")])
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write_pair(folder, "ca", authority, authority_key)
    for subject in subjects(plan):
        key = ec.generate_private_key(ec.SECP256R1())
        _write_pair(folder, subject.file, _issue(subject, key, authority_name, authority_key), key)
    tokens = ec.generate_private_key(ec.SECP256R1())
    (folder / "tokens.key").write_bytes(_pem(tokens))
    public = tokens.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "tokens.pub").write_bytes(public)


def kubeconfig(folder: Path, subject: str, server: str) -> str:
    """A kubeconfig that needs no other file."""

    def data(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    user = {"client-certificate-data": data(f"{subject}.crt"), "client-key-data": data(f"{subject}.key")}
    cluster = {"server": server, "certificate-authority-data": data("ca.crt")}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "testbed", "cluster": cluster}],
            "users": [{"name": subject, "user": user}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": subject}}],
            "current-context": "testbed",
        }
    )


def _issue(
    subject: Subject,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject.user)]
    if subject.group:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.group))
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    # what a strict verifier (RFC 5280; Python's default since 3.13) wants to find in every certificate
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        _builder(x509.Name(attributes), issuer, key.public_key())
        .add_extension(usages, critical=False)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(signer, critical=False)
    )
    alternatives: Sequence[x509.GeneralName] = [
        *map(x509.DNSName, subject.names),
        *map(x509.IPAddress, subject.addresses),
    ]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + VALID)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _write_pair(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(_pem(key))
