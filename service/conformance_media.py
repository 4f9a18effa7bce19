"""Section 5 of the conformance statement, media interchange: made of the profiles' and the directory's tables."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from pydicom.datadict import dictionary_description

from media import mediatypes, records
from media.coercion import attributes
from media.elements import tag_text
from media.encoders import encoders, lossy_encoders
from media.profile_keys import AddedKey, key_set, key_sets
from media.profile_rules import names, rules_of
from media.profiles import Profile, profiles
from media.records import Key
from media.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from service.conformance_text import table, uid_name

_SUPPLIED = {
    "date": "a date of the instance, of its acquisition, series or content",
    "time": "a time of the instance, of that date",
    "patient_id": "`NOID_n`",
    "study_id": "a number that no other study of the patient has",
    "series_number": "a number that no other series of the study has",
    "instance_number": "a number that no other instance of the series has",
}


def media_interchange() -> str:
    """The whole section."""
    return "\n\n".join(
        (
            _model(),
            _file_meta(),
            _profile_table(),
            *(_profile_group(list(rows)) for _, rows in groupby(_ready(), key=_alike)),
            _directory(),
            _icons(),
            _media(),
            _coercions(),
        )
    )


def _model() -> str:
    activities = [
        (
            "Write (`plan`, `burn`, a rule)",
            "FSC",
            (
                "A request's instances are checked against the profile, conformed where they must be, spread over as "
                "many file-sets as they need, and written. Each file-set is complete in itself; an instance is never "
                "split. Each medium is read back and compared before it counts as made"
            ),
        ),
        (
            "Read (`import`, `verify`)",
            "FSR",
            (
                "File-sets of any maker. `import` takes their instances in; `verify` reports what contradicts PS3.3 "
                "Annex F, PS3.10 or, with `--profile`, the profile"
            ),
        ),
        (
            "Update (`update`)",
            "FSU",
            (
                "Instances are added to a file-set, or removed. Its File-set UID, its other files and the records of "
                "its other instances stay. The DICOMDIR is right before and after every step"
            ),
        ),
    ]
    return f"""## 5 Media interchange

### 5.1 Implementation model and real-world activities

{table(("Activity", "Role", "What is done"), activities)}

A file-set holds a SOP instance once. Instances of one patient share one PATIENT record; two people under one Patient ID
never share a file-set. File-set IDs are counted, and File IDs, too, unless 5.2.2 says otherwise
(`DICOM/P0000001/ST000001/SE000001/IM000001`). The descriptor file of PS3.3 F.3.2.1 is not written. Beside the files of
PS3.10 there are README.TXT and MANIFEST.TXT, and where a medium is signed MANIFEST.SIG, SITEKEY.PEM and VERIFY.TXT."""


def _file_meta() -> str:
    rows = [
        ("Preamble", "128 bytes, all zero"),
        ("File Meta Information Version (0002,0001)", "0001H"),
        ("Media Storage SOP Class UID (0002,0002), SOP Instance UID (0002,0003)", "of the instance or the DICOMDIR"),
        ("Transfer Syntax UID (0002,0010)", "of the file; a DICOMDIR is in Explicit VR Little Endian"),
        ("Implementation Class UID (0002,0012)", IMPLEMENTATION_CLASS_UID),
        ("Implementation Version Name (0002,0013)", IMPLEMENTATION_VERSION_NAME),
        ("Source Application Entity Title (0002,0016), private information", "not written"),
    ]
    return f"""### 5.2 Files and application profiles

#### 5.2.1 File Meta Information

Of every file that Burnish puts on a medium: the data set of what is received or imported stays as it came, its File
Meta Information is ours.

{table(("Element", "Value"), rows)}"""


# -- profiles --------------------------------------------------------------------------------------------------------


def _ready() -> list[Profile]:
    """Profiles that are written, those together that differ in medium and roles only."""
    ready = [row for row in profiles().values() if row.status == "ready"]
    order = {key: number for number, key in reversed(list(enumerate(map(_alike, ready))))}
    return sorted(ready, key=lambda row: order[_alike(row)])


def _alike(row: Profile) -> tuple[object, ...]:
    classes, by_class = tuple(sorted(row.sop_classes)), tuple(sorted(row.by_class.items()))
    return (row.annex, row.writes, row.reads, classes, by_class, row.rules, row.directory_keys, row.random_file_ids)


def _profile_table() -> str:
    rows = []
    for row in profiles().values():
        ready = row.status == "ready"
        rows.append(
            (
                f"`{row.identifier}`",
                row.annex,
                "yes" if ready and "FSC" in row.roles else "no",
                "yes" if ready and "FSR" in row.roles else "no",
                ("yes" if ready else "no") if "FSU" in row.roles else "not defined",
                ", ".join(row.media) if ready else f"not supported: {row.reason}",
            )
        )
    return f"""#### 5.2.2 Application profiles

Annexes are those of PS3.11 (of the base profile, for `AUG-`). FSR: the media are read and verified by the profile.
Instances that come in a transfer syntax other than those said to be written by default are conformed to the first of
these that Burnish encodes. Others of those that a medium may hold come on it if a request says so: as received
(`--compress keep`), or made where table 4.2-2 says that they are encoded (`--compress lossless`).

{table(("Profile", "Annex", "FSC", "FSR", "FSU", "Media"), rows)}"""


def _profile_group(rows: list[Profile]) -> str:
    first = rows[0]
    about = first.description if len(rows) == 1 else "Profiles that differ in media and roles only"
    lines = [
        f"##### {', '.join(row.identifier for row in rows)}",
        "",
        f"{about} (PS3.11 {first.clauses['identification']}).",
        "",
        f"- SOP classes: {_classes(first)}",
        f"- Transfer syntaxes that are written by default: {_syntaxes(first.writes)}",
        f"- Transfer syntaxes that a medium may hold: {_syntaxes(first.reads)}",
    ]
    lines += [
        f"- but {uid_name(uid)} ({uid}): {_syntaxes(syntaxes)}" for uid, syntaxes in sorted(first.by_class.items())
    ]
    lines.append(f"- Additional directory keys: set {first.directory_keys} (5.3.2)")
    icon = key_set(first.directory_keys).icon
    if icon is not None:
        which = "each IMAGE record has one" if icon.required else "each IMAGE record of an image that can be decoded"
        lines.append(f"- Icon images: {icon.size} x {icon.size}, {which} (PS3.11 {icon.clause})")
    if first.rules:
        lines.append(f"- Attributes that are checked: {_rules(first)}")
    if first.random_file_ids:
        lines.append("- File IDs have random numbers (PS3.11 C.3.3.2)")
    return "\n".join(lines)


def _classes(row: Profile) -> str:
    if not row.sop_classes:
        return "every one of table 4.2-1 with a directory record"
    return "; ".join(f"{uid_name(uid)} ({uid})" for uid in sorted(row.sop_classes))


def _syntaxes(uids: Iterable[str]) -> str:
    return "; ".join(f"{uid_name(uid)} ({uid})" for uid in uids)


def _rules(row: Profile) -> str:
    """Each attribute once, by clause."""
    by_clause: dict[str, dict[str, None]] = {}
    for rule in rules_of(row.rules):
        by_clause.setdefault(rule.clause, {})[names().get(rule.tag, rule.name)] = None
    return "; ".join(f"{clause}: {', '.join(found)}" for clause, found in by_clause.items())


# -- directory -------------------------------------------------------------------------------------------------------


def _directory() -> str:
    keys = [
        (name, key.keyword, _tag(key.tag), key.type, _if_absent(key))
        for name, row in records.TYPES.items()
        if name != "PRIVATE"
        for key in row.keys
        if not (key.type in ("1C", "3") and any(key.tag in one.keys.get(name, ()) for one in key_sets().values()))
    ]
    added = [
        (one.name, name, key.keyword, _tag(key.tag), key.type, _condition(key))
        for one in key_sets().values()
        for name, of_record in one.keys.items()
        for key in of_record.values()
    ]
    return f"""### 5.3 DICOMDIR

A Basic Directory of explicit lengths, with the keys of its records in the character set of their instances. The
consistency flag is 0000H, records in use have FFFFH; no MRDR records and no private records are written.

#### 5.3.1 Keys

A value that an instance lacks and that its record must have is supplied in the record only, and listed in the plan, the
job's report and MANIFEST.TXT (PS3.11 D.3.3.1, note). Types 1C and 3: there if the instance has it.

{table(("Record", "Key", "Tag", "Type", "If the instance lacks it"), keys)}

#### 5.3.2 Additional keys of the application profiles

{table(("Set", "Record", "Key", "Tag", "Type", "Condition"), added)}"""


def _tag(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _if_absent(key: Key) -> str:
    if key.supply.startswith("="):
        return f"`{key.supply[1:]}`"
    if key.supply:
        return _SUPPLIED.get(key.supply, key.supply)
    return {"1": "the instance is refused", "2": "empty"}.get(key.type, "left out")


def _condition(key: AddedKey) -> str:
    parts = []
    if key.sop_class:
        parts.append("SOP class is " + " or ".join(uid_name(uid) for uid in sorted(key.sop_class)))
    if key.image_type_3:
        parts.append("value 3 of Image Type is " + " or ".join(sorted(key.image_type_3)))
    return "; ".join(parts)


def _icons() -> str:
    rows = []
    for one in key_sets().values():
        if one.icon is not None:
            icon = one.icon
            rows.append(
                (
                    one.name,
                    f"PS3.11 {icon.clause}",
                    f"{icon.size} x {icon.size}",
                    "MONOCHROME2, or PALETTE COLOR for colours"
                    if "PALETTE COLOR" in icon.photometric
                    else "MONOCHROME2",
                    "the instance is refused" if icon.required else "the record has none",
                )
            )
    return f"""#### 5.3.3 Icon images

{table(("Set", "Clause", "Rows x columns", "Photometric interpretation", "If none can be made"), rows)}

8 bits allocated and stored, pixel data of VR OB. The frame is that of Representative Frame Number (0028,6010), else the
one a third of the way through. Grey values pass the modality LUT and the first window, else the first VOI LUT of the
instance, else a window over 99 % of its values; MONOCHROME1 is inverted; palettes and YBR become RGB. The proportions
are kept, with black beside the picture. Presentation states, overlays and shutters are not applied."""


def _media() -> str:
    rows = [
        (name, f"PS3.12 {row.annex}", row.file_system, row.sectors, row.note or "")
        for name, row in mediatypes.media_types().items()
    ]
    return f"""### 5.4 Media

{table(("Medium", "Defined in", "File system", "Sectors planned with", "Note"), rows)}"""


# -- coercions -------------------------------------------------------------------------------------------------------


def _coercions() -> str:
    made = [
        (
            encoder.recipe,
            f"{uid_name(encoder.syntax)} ({encoder.syntax})",
            encoder.max_bits,
            encoder.rgb,
            "becomes RGB, its tables are dropped" if encoder.palette == "expand" else "its indices are compressed",
        )
        for encoder in encoders().values()
    ]
    lossy = [
        (
            f"{encoder.name}-{encoder.letter}{{{encoder.least}-{encoder.most}}}/{encoder.version}",
            f"{uid_name(encoder.syntax)} ({encoder.syntax})",
            encoder.max_bits,
            encoder.rgb,
            encoder.method,
            f"{encoder.min_psnr:.0f} dB",
        )
        for encoder in lossy_encoders()
    ]
    derived = [
        ("SOP Instance UID (0008,0018)", "a new one; references between instances of a request follow"),
        ("Image Type (0008,0008), Frame Type (0008,9007)", "value 1 is DERIVED"),
        ("Derivation Description (0008,2111)", 'a line that begins with "DRS:" before what is there'),
        (
            "Source Image Sequence (0008,2112)",
            "an item is added: the image before, with purpose (121320, DCM, Uncompressed predecessor) of CID 7202",
        ),
        ("Derivation Code Sequence (0008,9215)", "an item is added: (113040, DCM, Lossy Compression) of CID 7203"),
        ("Lossy Image Compression (0028,2110)", "01"),
        ("Lossy Image Compression Ratio, Method (0028,2112), (0028,2114)", "the measured ratio, the method: appended"),
        (
            "Pixel Representation (0028,0103), Rescale Intercept and Slope (0028,1052), (0028,1053)",
            "JPEG: unsigned, and the modality LUT's output stays what it was; added where they are needed",
        ),
        ("Modality LUT Sequence (0028,3000)", "applied to the samples and removed"),
        (
            (
                "Pixel Padding Value and Range Limit (0028,0120), (0028,0121); Smallest and Largest Pixel Value in "
                "Series (0028,0108), (0028,0109)"
            ),
            "removed",
        ),
        (
            "Smallest and Largest Image Pixel Value (0028,0106), (0028,0107)",
            "where they are, those of the decoded frames",
        ),
    ]
    decoded = [
        ("Transfer Syntax UID (0002,0010)", "Explicit VR Little Endian"),
        (
            "Photometric Interpretation (0028,0004)",
            (
                "YBR_ICT, YBR_RCT: RGB. YBR_FULL_422: YBR_FULL. RGB whose lossy JPEG codestream says YCbCr: YBR_FULL. "
                "Component identifiers R, G, B: RGB. Colours themselves are not converted"
            ),
        ),
        ("Planar Configuration (0028,0006)", "0, but as it was for RLE"),
        (
            "Bits Allocated, Bits Stored, High Bit (0028,0100), (0028,0101), (0028,0102)",
            "those of the codestream, where samples need more bits than the data set says",
        ),
        ("Extended Offset Table and its lengths (7FE0,0001), (7FE0,0002)", "removed"),
        ("VR", "by the dictionary, where the file says none; UN where a value is too long for its VR"),
        (
            "Elements of groups 0000 and 0002 within a data set; group lengths; Data Set Trailing Padding",
            "removed",
        ),
    ]
    corrected = [
        (
            f"{dictionary_description(one.tag)} {tag_text(one.tag)}",
            one.level,
            "removed only"
            if " or " in one.vr
            else "corrected"
            if one.needed == 1
            else "corrected, emptied"
            if one.needed
            else "corrected, emptied, removed",
            {"patient": "of the patient", "study": "of the study"}.get(one.catalogue, ""),
        )
        for one in attributes().values()
    ]
    return f"""### 5.5 Conforming

An instance goes on a medium byte for byte where it need not be conformed; what is conformed is a copy. Every change is
listed with old and new value in the plan and in the job's report. The SOP Instance UID stays where no sample changes.
What cannot be conformed is refused by name.

Decoding changes:

{table(("Element", "Becomes"), decoded)}

Compression, on request (`--compress lossless`) or where the profile has no uncompressed syntax; each frame is decoded
again and compared before it counts. Images that do not suit the encoder stay uncompressed where the profile allows it.

{table(("Recipe", "Transfer syntax", "Bits a sample, at most", "RGB is then", "PALETTE COLOR"), made)}

Lossy compression, only where the request allows it; each frame is decoded again, and the instance is left as it is
where a frame would keep less than the least PSNR.

{table(("Recipe", "Transfer syntax", "Bits a sample, at most", "Colour is then", "Method", "Least PSNR"), lossy)}

It changes, beside Bits Allocated, Bits Stored, High Bit and Planar Configuration:

{table(("Element", "Becomes"), derived)}

Never compressed lossily, whatever the request says: the modalities of setting `compress.protected_modalities` and the
SOP classes of `compress.protected_sop_classes` (mammography, unless a site says otherwise), and what was compressed
lossily before. In instances of the same request, references to what got a new SOP Instance UID follow: every value of
VR UI in an item of a sequence, however deep, and SOP Instance UID of Concatenation Source (0020,0242). These instances
keep their own UID. References from and to instances that are not in the request stay.

Corrections, on request (`--coerce`, `--coerce-catalogue`, settings `[coerce]`), in the instance and its directory
records. Without a request nothing of this is changed. An instance whose attributes alone are changed keeps its transfer
syntax and its pixel data; private attributes are kept; Digital Signatures Sequence (FFFA,FFFA) and MAC Parameters
Sequence (4FFE,0001) of what was edited are removed. Where the character set of an instance cannot hold a new value,
Specific Character Set (0008,0005) becomes ISO_IR 192 if all other text is ASCII; else the instance is refused.

{table(("Attribute", "Level", "By rules", "From the catalogue"), corrected)}

Of two instances that were received under one SOP Instance UID with different content, both go on a medium if the
request says so (`--conflicts keep-both`); the later one gets a new SOP Instance UID. Attributes of type 2 that the
application profile demands and the instance lacks (PS3.11 Table K.3-4) are added without a value."""
