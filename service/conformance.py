"""The DICOM conformance statement in the layout of PS3.2, made of the tables and code that it speaks of.

``python -m service.conformance > docs/conformance.md`` writes the one of the product as shipped;
``burnish conformance`` prints that of an installation.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.metadata import version
from typing import Any

from media.charsets import DEFINED_TERMS, UNDECLARED
from media.encoders import encoders, lossy_encoders
from media.records import record_type
from media.syntaxes import transfer_syntaxes
from media.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from service.conformance_text import Values, table, uid_name

COMMAND = "python -m service.conformance > docs/conformance.md"
_STATUS_CLASSES = (
    (0x0000, "Success"),
    (0x0110, "Refused: Processing failure"),
    (0x0122, "Refused: SOP class not supported"),
    (0xA700, "Refused: Out of resources"),
    (0xA900, "Error: Data set does not match SOP class"),
    (0xC000, "Error: Cannot understand"),
)
_AGAIN = {0x0000: "Done", 0x0110: "Send again; if it stays, read our log", 0xA700: "Send again later"}


def shipped() -> Values:
    """The settings as they are without any file, environment or option."""
    return tomllib.loads(_defaults())


def _defaults() -> str:
    return resources.files("config").joinpath("defaults.toml").read_text("utf-8")


def statement(values: Values, *, site: bool = False) -> str:
    """The whole statement, in Markdown. ``site``: that of an installation, with its settings."""
    from service.conformance_media import media_interchange

    return (
        "\n\n".join(
            (
                _overview(site=site),
                _introduction(),
                _networking(values),
                media_interchange(),
                _character_sets(),
                _security(),
                _annexes(),
            )
        ).rstrip()
        + "\n"
    )


def _overview(*, site: bool) -> str:
    head = (
        "<!-- Made of tables and code; do not edit. Anew: " + COMMAND + " -->\n\n" if not site else ""
    ) + f"# DICOM Conformance Statement: Burnish {version('burnish')}"
    services = [
        ("Verification", "no", "yes", "no"),
        ("Storage (4.2.1)", "no", "yes", "no"),
        ("Media Creation Management (4.2.4)", "no", "yes", "no"),
        ("Storage Commitment Push Model (4.2.5)", "no", "yes", "no"),
        ("Query/Retrieve: FIND, MOVE, GET (4.2.6)", "no", "yes", "no"),
        ("DICOMweb: STOW-RS, QIDO-RS, WADO-RS (4.2.7)", "no", "origin server", "no"),
        ("Media storage (5)", "", "", "FSC, FSR, FSU"),
    ]
    return f"""{head}

## 1 Overview

Burnish receives instances by C-STORE, keeps them, and writes them as DICOM file-sets on interchange media, which it
verifies and catalogues. It reads and updates file-sets, its own and other makers'.

{table(("Service", "SCU", "SCP", "Media roles"), services)}

It opens associations of its own to tell the results of storage commitments, and to send what a C-MOVE asks for.
Modality Worklist and print are not supported.

## 2 Contents

3 Introduction; 4 Networking; 5 Media interchange; 6 Character sets; 7 Security; 8 Annexes."""


def _introduction() -> str:
    return """## 3 Introduction

For those who connect devices to an installation of Burnish, or receive its media. Conformance to this statement does
not by itself assure that two devices work together: that is for their users to test (PS3.2). Burnish is not a medical
device. `burnish conformance` prints this statement with the settings of an installation.

Terms and abbreviations are those of DICOM; FSC, FSR and FSU are File-set Creator, Reader and Updater (PS3.10). SCP and
SCU are Service Class Provider and User. Numbers of sections and tables are those of PS3.x 2008 where nothing else is
said, and of the current edition for what was added since."""


# -- 4 Networking ----------------------------------------------------------------------------------------------------


def _networking(values: Values) -> str:
    from service.conformance_commitment import commitment
    from service.conformance_creation import media_creation
    from service.conformance_query import query_retrieve
    from service.conformance_web import dicomweb

    dicom = values["dicom"]
    return "\n\n".join(
        (
            """## 4 Networking

### 4.1 Implementation model

One Application Entity, the Storage AE, accepts associations. It writes each data set to disk as it comes, enters it in
a database, and answers then: 0000H means that the file is synced to disk and its row committed. What was received is
put on media when an operator, a command, an HTTP client or a rule asks for it. It answers queries over all of it, and
sends it where a retrieve wants it.

### 4.2 Storage AE

#### 4.2.1 SOP classes and transfer syntaxes

Verification (1.2.840.10008.1.1) as SCP, and as Storage SCP, level 2 (full), the SOP classes of table 4.2-1 in every
transfer syntax of table 4.2-2. No element is dropped or changed: a data set is kept byte for byte as received."""
            + _private(dicom),
            "Table 4.2-1. Storage SOP classes, and the directory record that references their instances on media "
            "(none: they are received, but cannot be put on media).\n\n" + _storage_table(),
            "Table 4.2-2. Transfer syntaxes. Decoded: instances that arrive in it can be conformed to uncompressed "
            "ones; the others go on media only under a profile that allows their transfer syntax. Encoded: Burnish "
            "can conform instances to it.\n\n" + _syntax_table(),
            _association_policies(dicom),
            _statuses(),
            media_creation(),
            commitment(values["commitment"]),
            query_retrieve(),
            dicomweb(),
            _interfaces(),
            _configuration(values),
        )
    )


def _private(dicom: Mapping[str, Any]) -> str:
    added = dicom["private_sop_classes"]
    if not added:
        return "\nPrivate storage SOP classes are accepted where the setting `dicom.private_sop_classes` lists them."
    return "\nPrivate storage SOP classes that are accepted, too: " + ", ".join(added) + "."


def _storage_table() -> str:
    from scp.storage import storage_classes

    rows = sorted((uid_name(uid), uid, record_type(uid) or "none") for uid in storage_classes())
    return table(("SOP class", "UID", "Directory record"), rows)


def _syntax_table() -> str:
    from scp.storage import transfer_syntaxes as received

    made = {encoder.syntax for encoder in (*encoders().values(), *lossy_encoders())} | {"1.2.840.10008.1.2.1"}
    known = transfer_syntaxes()
    rows = [
        (
            uid_name(uid),
            uid,
            "yes" if uid in known and not known[uid].refused else "no",
            "yes" if uid in made else "no",
        )
        for uid in sorted(received(), key=_by_number)
    ]
    return table(("Transfer syntax", "UID", "Decoded", "Encoded"), rows)


def _by_number(uid: str) -> list[int]:
    return [int(part) for part in uid.split(".")]


def _association_policies(dicom: Mapping[str, Any]) -> str:
    def titles(key: str) -> str:
        return ", ".join(dicom[key]) if dicom[key] else "any"

    rejections = [
        ("2 (rejected transient)", "3 (presentation service provider)", "2 (local limit exceeded)", "too many"),
        ("1 (rejected permanent)", "1 (service user)", "7 (called AE title not recognized)", "setting"),
        ("1 (rejected permanent)", "1 (service user)", "3 (calling AE title not recognized)", "setting; TLS wanted"),
        ("2 (rejected transient)", "3 (presentation service provider)", "1 (temporary congestion)", "no database"),
        ("1 (rejected permanent)", "1 (service user)", "1 (no reason given)", "user identity missing or wrong"),
    ]
    return f"""#### 4.2.2 Association policies

{
        table(
            ("Parameter", "Value", "Setting"),
            [
                ("Application context name", "1.2.840.10008.3.1.1.1", ""),
                ("AE title", dicom["ae_title"], "`dicom.ae_title`"),
                ("Called AE titles accepted", titles("called_ae_titles"), "`dicom.called_ae_titles`"),
                ("Calling AE titles accepted", titles("calling_ae_titles"), "`dicom.calling_ae_titles`"),
                ("Associations at the same time", dicom["max_associations"], "`dicom.max_associations`"),
                ("Largest PDU received (bytes)", dicom["max_pdu"], "`dicom.max_pdu`"),
                ("Asynchronous operations", "none: one operation at a time", ""),
                ("Wait for an association message (s)", dicom["acse_timeout"], "`dicom.acse_timeout`"),
                ("Wait within a DIMSE message (s)", dicom["dimse_timeout"], "`dicom.dimse_timeout`"),
                ("Idle association (s)", dicom["network_timeout"], "`dicom.network_timeout`"),
                ("Implementation class UID", IMPLEMENTATION_CLASS_UID, ""),
                ("Implementation version name", IMPLEMENTATION_VERSION_NAME, ""),
            ],
        )
    }

Associations are initiated to tell the results of storage commitments (4.2.5) and for the C-STORE sub-operations of a
C-MOVE (4.2.6): one presentation context for each SOP class and transfer syntax that is to be sent, at most 128.

Acceptance: an association is rejected as follows, in this order; otherwise it is accepted, with every presentation
context of a supported abstract syntax and at least one known transfer syntax. SCP/SCU role selection is accepted as
proposed; extended negotiation is answered for Query/Retrieve (4.2.6); user identity as 7 says.

{table(("Result", "Source", "Reason", "When"), rejections)}

Of the transfer syntaxes that are proposed for a presentation context the first known one is accepted; but Explicit VR
Little Endian is, where the first is Implicit VR Little Endian or Explicit VR Big Endian and it is proposed, too. To
propose one transfer syntax in each presentation context is the way to send every instance as it is held."""


def _statuses() -> str:
    from scp.statuses import SUCCESS, TABLE, UNEXPECTED

    rows = []
    for answer in sorted((SUCCESS, *TABLE.values(), UNEXPECTED), key=lambda one: one.status):
        start, family = max(row for row in _STATUS_CLASSES if row[0] <= answer.status)
        comment = answer.comment or "The instance is durable: file and row are on disk"
        further = _AGAIN.get(start, "Mend what sends it; the same data set fails again")
        rows.append((f"{answer.status:04X}H", family, comment, further))
    return f"""#### 4.2.3 Statuses of C-STORE

Comments stand in Error Comment (0000,0902); where one element is to blame, Offending Element (0000,0901) names it.

{table(("Status", "Meaning", "When (Error Comment)", "What to do"), rows)}

The same instance received again is answered 0000H and kept once. An instance with the SOP Instance UID of another and
other content is answered 0000H, too: both are kept, and shown as a conflict; which goes on media the setting
`plan.conflicts` or the request decides. An instance as Burnish itself conformed it for a disc, known by the digest of
its file, is no conflict: it is answered 0000H, and kept where the data set as received is not in the spool any more. It
is one, and both are kept, where rules gave it another patient. C-ECHO is answered 0000H. An association that ends
within a data set leaves nothing of it."""


def _interfaces() -> str:
    return """### 4.3 Network interfaces

TCP/IP, and TLS over it (see 7). No OSI stack."""


def _configuration(values: Values) -> str:
    rows = []
    for section, key, comment in _commented():
        rows.append((f"`{section}.{key}`", _shown(values[section][key]), comment))
    return f"""### 4.4 Configuration

Settings that concern conformance; [settings.md](settings.md) has all of them.

{table(("Setting", "Value", "Meaning"), rows)}"""


_SECTIONS = ("dicom", "tls", "commitment", "remote", "spool", "plan")


def _commented() -> Iterable[tuple[str, str, str]]:
    """Section, key and comment of the settings that this statement lists, as config/defaults.toml has them."""
    section = ""
    for line in _defaults().splitlines():
        if heading := re.match(r"\[(\w+)\]", line):
            section = heading[1]
        elif section in _SECTIONS and (row := re.match(r"(\w+) = .*?# (.*)", line)):
            yield section, row[1], row[2]


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value) if str(value) else "none"


# -- 6 to 8 ----------------------------------------------------------------------------------------------------------


def _character_sets() -> str:
    return f"""## 6 Character sets

Specific Character Set (0008,0005), of which these defined terms are understood, with code extensions by ISO 2022:

{", ".join(f"`{term}`" for term in DEFINED_TERMS)}.

Data sets keep theirs. A directory record has the values and the Specific Character Set of its instance. Text with
bytes above 127 whose data set declares none is taken for `{UNDECLARED}`, and its directory record says so. Matching in
the catalogue is by Unicode, without regard to case. README.TXT of a medium is UTF-8."""


def _security() -> str:
    return """## 7 Security

BCP 195 TLS Secure Transport Connection Profile (PS3.15 B.9): TLS 1.2 and 1.3, with forward secrecy and authenticated
encryption only, on a port of its own (setting `tls.enabled`), for associations that we accept and that we open.
Certificates of those who connect are demanded as `tls.client_certificates` says, against the authorities of `tls.ca`;
of those whom we connect to they always are. A node that is entered with TLS is accepted over TLS only. Addresses
(`dicom.allowed_addresses`) and AE titles (4.2.2) can be restricted, and associations and connections a minute limited
for each address: who is one too many, or not allowed, is hung up on.

User Identity Negotiation (PS3.7 D.3.3.7): user name and passcode (type 2), as `dicom.user_identity` says; other types
are not accepted where one is required. A positive response is given where it is asked for.

No audit trail profile of PS3.15, no digital signatures in data sets and no media storage security profile is supported.
The HTTP interface needs a token.

A medium has MANIFEST.TXT with the SHA-256 digests of its files. Where the setting `site.signing_key` names a key,
that is signed (Ed25519): MANIFEST.SIG, SITEKEY.PEM, VERIFY.TXT. No directory record references these files."""


def _annexes() -> str:
    return """## 8 Annexes

### 8.1 IOD contents

The only SOP instance that Burnish creates is the Basic Directory (5.3). Received instances are changed only by
conforming, as 5.5 says. Which elements of an instance have effects beside being kept: SOP Class UID, SOP Instance UID,
Study and Series Instance UID and Patient ID (0020,000D; 0020,000E; 0010,0020) place it; Patient's Name and Birth Date
and Issuer of Patient ID tell patients apart; the keys of directory records are copied to them (5.3).

### 8.2 Private attributes

None are written. Those of received instances are kept.

### 8.3 Coded terminology

None is used.

### 8.4 Grayscale image consistency

Burnish displays no images for diagnosis. Icon images (5.3.3) are 8 bits, for recognition only.

### 8.5 Standard extended, specialized and private SOP classes

None are created."""


def main() -> None:
    """Print the statement of the product as shipped."""
    sys.stdout.write(statement(shipped()))


if __name__ == "__main__":
    main()
