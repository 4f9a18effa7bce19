"""Signed manifests: the key's file, what lies on the disc, and every way in which it can be wrong."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from media import signing
from media.problems import MediaError, ProblemKind
from media.signing import SiteKey, fingerprint, is_signed, kept
from media.trees import open_tree
from media.verify import VerifyResult, verify_path
from tests.makers import our_disc, study


@pytest.fixture
def key(tmp_path: Path) -> SiteKey:
    return SiteKey.open(tmp_path / "site-key.pem")


@pytest.fixture
def disc(tmp_path: Path, key: SiteKey) -> Path:
    return our_disc(tmp_path / "signed.iso", study("CT", 3), seal=key.seal)


@pytest.fixture
def copy(disc: Path, tmp_path: Path) -> Path:
    """The disc's files in a folder."""
    folder = tmp_path / "copy"
    with open_tree(disc) as tree:
        for name in tree.order:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tree.open(name).read())
    return folder


def kinds(result: VerifyResult) -> list[tuple[ProblemKind, str]]:
    return [(problem.kind, problem.file) for problem in result.problems]


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "site-key.pem"
    first = SiteKey.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*path.parent.iterdir()] == [path]
    again = SiteKey.open(path)
    assert again.public_key == first.public_key and len(first.public_key) == signing.PUBLIC_KEY_BYTES
    assert again.sign(b"m") == first.sign(b"m") and len(first.sign(b"m")) == signing.SIGNATURE_BYTES
    assert first.fingerprint == fingerprint(first.public_key) and len(first.fingerprint.split()) == 8


def test_many_who_begin_at_once_get_one_key(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for round_ in range(20):
        path = tmp_path / str(round_) / "site-key.pem"
        with ThreadPoolExecutor(8) as pool:
            keys = {key.public_key for key in pool.map(SiteKey.open, [path] * 8)}
        assert len(keys) == 1 and [*path.parent.iterdir()] == [path]


def test_a_key_that_others_may_read_is_refused(key: SiteKey) -> None:
    key.path.chmod(0o640)
    with pytest.raises(MediaError, match="chmod 600"):
        SiteKey.open(key.path)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "site-key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(MediaError, match=r"site-key\.pem"):
        SiteKey.open(path)
    assert path.read_bytes() == content


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = tmp_path / "site-key.pem"
    path.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(MediaError, match="no Ed25519 key"):
        SiteKey.open(path)


def test_a_kept_signature_seals_nothing_else(key: SiteKey) -> None:
    seal = kept(key.public_key, key.sign(b"this manifest"))
    assert seal.sign(b"this manifest") == key.sign(b"this manifest")
    with pytest.raises(MediaError, match="plan it anew"):
        seal.sign(b"another manifest")


def test_the_page_about_checking_is_plain_text_for_any_system() -> None:
    page = signing.help_bytes()
    assert page.isascii() and page.count(b"\n") == page.count(b"\r\n")
    for name in (signing.SIGNATURE_FILE, signing.KEY_FILE, "MANIFEST.TXT"):
        assert name.encode() in page


def test_a_signed_disc_is_right_and_names_its_signer(disc: Path, key: SiteKey) -> None:
    result = verify_path(disc)
    assert result.problems == ()
    assert result.signer == key.public_key
    with open_tree(disc) as tree:
        order = [*tree.order][:6]
        assert order == ["DICOMDIR", "README.TXT", "MANIFEST.TXT", "MANIFEST.SIG", "SITEKEY.PEM", "VERIFY.TXT"]
        manifest = tree.open("MANIFEST.TXT").read()
        assert is_signed(manifest, tree.open("MANIFEST.SIG").read(), tree.open("SITEKEY.PEM").read())
        assert b"  SITEKEY.PEM\n" in manifest and b"  VERIFY.TXT\n" in manifest


def test_an_unsigned_disc_has_no_signer(tmp_path: Path) -> None:
    result = verify_path(our_disc(tmp_path / "plain.iso", study("CT", 1)))
    assert result.problems == () and result.signer is None


def test_a_copied_file_set_is_as_right_as_the_disc(copy: Path, key: SiteKey) -> None:
    result = verify_path(copy)
    assert result.problems == () and result.signer == key.public_key


def test_a_manifest_written_anew_by_a_forger_is_found(copy: Path) -> None:
    """The forger changes an instance and puts its new digest in the manifest, sum of the lines and all."""
    import hashlib

    victim = next(copy.rglob("IM*"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    old, new = (hashlib.sha256(piece).hexdigest() for piece in (victim.read_bytes(), bytes(data)))
    victim.write_bytes(data)
    manifest = copy / "MANIFEST.TXT"
    body = manifest.read_bytes().replace(old.encode(), new.encode()).splitlines(keepends=True)[:-1]
    seal = f"# sha256 of the lines above: {hashlib.sha256(b''.join(body)).hexdigest()}\n"
    manifest.write_bytes(b"".join(body) + seal.encode())
    result = verify_path(copy)
    assert kinds(result) == [(ProblemKind.SIGNATURE, "MANIFEST.SIG")]
    assert result.signer is None


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("MANIFEST.SIG", None, [(ProblemKind.SIGNATURE, "MANIFEST.SIG")]),
        ("MANIFEST.SIG", b"", [(ProblemKind.SIGNATURE, "MANIFEST.SIG")]),
        ("MANIFEST.SIG", bytes(64), [(ProblemKind.SIGNATURE, "MANIFEST.SIG")]),
        ("MANIFEST.SIG", bytes(65), [(ProblemKind.SIGNATURE, "MANIFEST.SIG")]),
        ("SITEKEY.PEM", None, [(ProblemKind.SIGNATURE, "SITEKEY.PEM"), (ProblemKind.MISSING, "SITEKEY.PEM")]),
        ("SITEKEY.PEM", b"junk", [(ProblemKind.SIGNATURE, "SITEKEY.PEM"), (ProblemKind.DIGEST, "SITEKEY.PEM")]),
        (
            "SITEKEY.PEM",
            b"-----BEGIN PUBLIC KEY-----\n" + b"A" * 60_000 + b"\n-----END PUBLIC KEY-----\n",
            [(ProblemKind.SIGNATURE, "SITEKEY.PEM"), (ProblemKind.DIGEST, "SITEKEY.PEM")],
        ),
        ("SITEKEY.PEM", bytes(70_000), [(ProblemKind.SIGNATURE, "SITEKEY.PEM"), (ProblemKind.DIGEST, "SITEKEY.PEM")]),
        ("VERIFY.TXT", b"Do nothing.", [(ProblemKind.DIGEST, "VERIFY.TXT")]),
    ],
)
def test_every_damage_is_named(
    copy: Path, name: str, content: bytes | None, expected: list[tuple[ProblemKind, str]]
) -> None:
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    assert kinds(verify_path(copy)) == expected


def test_anothers_key_on_the_disc_is_told_by_its_fingerprint(copy: Path, tmp_path: Path, key: SiteKey) -> None:
    """Whoever signs everything anew with a key of their own passes here; the fingerprint gives them away."""
    other = SiteKey.open(tmp_path / "forger.pem")
    manifest = copy / "MANIFEST.TXT"
    import hashlib

    old, new = (hashlib.sha256(pem).hexdigest().encode() for pem in (key.public_key, other.public_key))
    (copy / "SITEKEY.PEM").write_bytes(other.public_key)
    body = manifest.read_bytes().replace(old, new).splitlines(keepends=True)[:-1]
    manifest.write_bytes(
        b"".join(body) + f"# sha256 of the lines above: {hashlib.sha256(b''.join(body)).hexdigest()}\n".encode()
    )
    (copy / "MANIFEST.SIG").write_bytes(other.sign(manifest.read_bytes()))
    result = verify_path(copy)
    assert result.problems == ()
    assert result.signer == other.public_key != key.public_key
