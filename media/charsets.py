"""Text in the character sets of PS3.3 C.12.1.1.2, with the code extensions of ISO 2022 (PS3.5 6.1, Annexes H to K)."""

from __future__ import annotations

import re

UNDECLARED = "ISO_IR 100"
"""What text with bytes above 127 is taken for that says nothing of its character set: most of it in the field is that,
and one answer for all of it is worth more than a guess at each value, which the next reader would guess otherwise."""

_ESC = b"\x1b"

# Defined terms with the Python codec of a value that begins in that character set.
_CODECS = {
    "": "ascii",
    "ISO_IR 6": "ascii", "ISO 2022 IR 6": "ascii",
    "ISO_IR 100": "latin_1", "ISO 2022 IR 100": "latin_1",
    "ISO_IR 101": "iso8859_2", "ISO 2022 IR 101": "iso8859_2",
    "ISO_IR 109": "iso8859_3", "ISO 2022 IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4", "ISO 2022 IR 110": "iso8859_4",
    "ISO_IR 144": "iso8859_5", "ISO 2022 IR 144": "iso8859_5",
    "ISO_IR 127": "iso8859_6", "ISO 2022 IR 127": "iso8859_6",
    "ISO_IR 126": "iso8859_7", "ISO 2022 IR 126": "iso8859_7",
    "ISO_IR 138": "iso8859_8", "ISO 2022 IR 138": "iso8859_8",
    "ISO_IR 148": "iso8859_9", "ISO 2022 IR 148": "iso8859_9",
    "ISO_IR 203": "iso8859_15", "ISO 2022 IR 203": "iso8859_15",
    "ISO_IR 166": "tis_620", "ISO 2022 IR 166": "tis_620",
    "ISO_IR 13": "shift_jis", "ISO 2022 IR 13": "shift_jis",
    "ISO 2022 IR 87": "iso2022_jp", "ISO 2022 IR 159": "iso2022_jp_2",
    "ISO 2022 IR 149": "euc_kr", "ISO 2022 IR 58": "gb2312",
    "ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gbk",
}  # fmt: skip
DEFINED_TERMS = tuple(term for term in _CODECS if term)
"""Of Specific Character Set (0008,0005), those that are understood."""

# Escape sequences (PS3.3 Tables C.12-3 and C.12-4) with the codec of the bytes behind them. A codec of the ISO-2022-JP
# family needs to see the escape sequence itself; the others must not.
_ESCAPES = {
    b"(B": "", b"-A": "latin_1", b"-B": "iso8859_2", b"-C": "iso8859_3", b"-D": "iso8859_4", b"-L": "iso8859_5",
    b"-G": "iso8859_6", b"-F": "iso8859_7", b"-H": "iso8859_8", b"-M": "iso8859_9", b"-b": "iso8859_15",
    b"-T": "tis_620", b")I": "shift_jis", b"(J": "shift_jis", b"$B": "iso2022_jp", b"$@": "iso2022_jp",
    b"$(D": "iso2022_jp_2", b"$)C": "euc_kr", b"$)A": "gb2312",
}  # fmt: skip
_SEEN = frozenset(("iso2022_jp", "iso2022_jp_2"))
_SPLIT = re.compile(rb"\x1b(\([BJ]|-[A-Z b]|\)I|\$[B@]|\$\(D|\$\)[AC])")
_MISSPELT = re.compile(r"^ISO[ _-]?(?:2022)?[ _-]?IR[ _-]?(\d+)$")


def codecs_of(specific_character_set: str) -> tuple[str, ...]:
    """The Python codecs of a Specific Character Set value (backslash separated), the first for plain bytes.

    Unknown terms count as the default repertoire; common misspellings (``ISO-IR 100``) are understood.
    """
    found = []
    for spelt in specific_character_set.split("\\"):
        term = spelt.strip().upper()
        match = None if term in _CODECS else _MISSPELT.match(term)
        found.append(_CODECS.get(f"ISO_IR {match[1]}" if match else term, "ascii"))
    return tuple(found)


def decode(value: bytes, charsets: tuple[str, ...], *, name: bool = False) -> str:
    """A text value as Unicode; never fails: what is not in the character set becomes U+FFFD.

    ``charsets`` come from ``codecs_of``. With ``name`` the code extensions also end at the ``^`` and ``=`` of a
    person name (PS3.5 6.1.2.5.3). Bytes above 127 without a declared character set are read as ``UNDECLARED``.
    """
    if _ESC not in value:
        return _plain(value, charsets[0])
    if len(charsets) == 1:
        # Escape sequences without declared code extensions: believed, as Japanese devices do forget to declare them.
        charsets = (charsets[0], "iso2022_jp_2")
    pieces = _SPLIT.split(value)
    text = [_plain(pieces[0], charsets[0])]
    for escape, content in zip(pieces[1::2], pieces[2::2], strict=True):
        text.append(_extended(escape, content, charsets[0], name=name))
    return "".join(text)


def _extended(escape: bytes, content: bytes, initial: str, *, name: bool) -> str:
    """The bytes behind one escape sequence; behind a delimiter the initial character set holds again."""
    codec = _ESCAPES.get(escape, "")
    if not codec:
        return _plain(content, initial)
    reset = re.search(rb"[\^=\\\r\n\f\t]" if name else rb"[\\\r\n\f\t]", content) if codec not in _SEEN else None
    if codec in _SEEN or reset is None:
        return (_ESC + escape + content if codec in _SEEN else content).decode(codec, "replace")
    return content[: reset.start()].decode(codec, "replace") + _plain(content[reset.start() :], initial)


def _plain(value: bytes, codec: str) -> str:
    if value.isascii() and codec not in _SEEN:
        return value.decode("ascii")
    if codec == "ascii":
        codec = _CODECS[UNDECLARED]
    return value.decode(codec, "replace")
