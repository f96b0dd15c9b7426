"""The encoding of file names in archives that do not say it.

Libraries that detect encodings need sentences. A file name has a few letters, so the encodings that are usual in
archives are compared by how probable they make these letters.
"""

import codecs
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from distdiff.errors import UserError

UTF8, STANDARD = "utf-8", "cp437"  # what a .zip file's flag stands for, and what it means without the flag
# Where two encodings make the names equally probable, the first is assumed. DOS comes before Windows, because Windows'
# own archiver writes names in the encoding of DOS.
PRIORS = {  # how improbable each encoding is by itself, in powers of two
    "cp437": 0.0,
    "cp850": 0.0,
    "cp866": 3.0,
    "cp1252": 0.0,
    "cp1251": 3.0,
    "koi8_r": 5.0,
    "cp932": 0.0,  # Shift JIS
    "gbk": 0.0,
    "big5": 1.0,
    "cp949": 2.5,  # Korean
}
# For each encoding of two bytes a character: a character set in which the first bytes from and up to the given ones
# hold the frequent characters, and how many these are in powers of two.
CHARACTERS = {
    "cp932": ("euc_jp", 0xB0, 0xCF, 11.5),
    "gbk": ("gb2312", 0xB0, 0xD7, 11.9),
    "big5": ("big5", 0xA4, 0xC6, 12.4),
    "cp949": ("euc_kr", 0xB0, 0xC8, 13.9),  # beyond those in `FREQUENT_HANGUL`
}
CERTAIN = 3  # letters beyond ASCII; a name with as many is hardly valid UTF-8 by chance
WORDS = 2000  # different parts of names; more tell nothing new
FREQUENT_HANGUL = frozenset(  # Korean and Chinese share their first bytes
    "가강개고과관구국기나남녀노다대도동라람련로리마모무물미부비사산상새생서선성소수스시아안양어여영오우원유이인일자장전정제조주지진차천치타하학한해호화훈"
)
SURE, USUAL, RARE, STRANGE, WRONG = 5.0, 6.5, 10.0, 15.0, 24.0  # costs of a letter in powers of two
FOREIGN, CASE = 12.0, 8.0  # costs of letters of two scripts in one word, and of capitals within a word
USUAL_LATIN = frozenset("äöüßéèêáàâçñíóúåøæîôûëïãÄÖÜÉÅØÆÇÑ")
ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "IDEOGRAPHIC")
VOWELS = frozenset("aeiouyäöüAEIOUÄÖÜ")


@dataclass(frozen=True)
class RawName:
    """A file name in an archive. `text` is set if the archive says the encoding, or if the name is plain ASCII."""

    raw: bytes
    text: str | None = None


def check_encoding(name: str | None) -> None:
    """Raises `UserError` if `name` is neither None nor a text encoding."""
    try:
        if name is not None:
            "a".encode(name)
            codecs.lookup(name)
    except (LookupError, ValueError):
        raise UserError(
            f"dataset.archive_encoding={name} is not allowed: a text encoding, such as cp437, shift_jis or gbk, or null, "
            "which detects it"
        ) from None


def decoded(names: Sequence[RawName], encoding: str | None) -> tuple[list[str], str | None]:
    """The texts of `names`, and the encoding that was assumed where the archive says none (None if it always does).

    If `encoding` is None, it is detected. Names that are valid UTF-8 are then taken for UTF-8. The exception is a name of
    few letters beside names of two bytes a character, because such a name may be valid UTF-8 by chance. Raises
    `UnicodeError` if a name is not in `encoding`.
    """
    unsaid = [name.raw for name in names if name.text is None]
    if not unsaid:
        return [name.text for name in names], None
    others = [raw for raw in unsaid if _as_utf8(raw) is None]
    assumed = encoding or (detected(others) if others else UTF8)

    def text(raw: bytes) -> str:
        utf8 = None if encoding else _as_utf8(raw)
        if utf8 is None or (assumed in CHARACTERS and _may_be_chance(utf8) and _can_be(raw, assumed)):
            return raw.decode(assumed)
        return utf8

    return [text(name.raw) if name.text is None else name.text for name in names], assumed


def detected(names: Sequence[bytes]) -> str:
    """The most probable encoding of `names`, of which none is UTF-8."""
    whole = b"/".join(names)
    words = sorted({part for part in whole.split(b"/") if not part.isascii()})[:WORDS]
    costs = {
        encoding: prior + sum(_cost(word.decode(encoding), encoding) for word in words)
        for encoding, prior in PRIORS.items()
        if _can_be(whole, encoding)
    }
    return min(costs, key=costs.get)


def _as_utf8(raw: bytes) -> str | None:
    return raw.decode(UTF8) if _can_be(raw, UTF8) else None


def _can_be(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _may_be_chance(text: str) -> bool:
    return sum(not char.isascii() for char in text) < CERTAIN


def _cost(text: str, encoding: str) -> float:
    """How improbable the characters of a name beyond ASCII are, in powers of two."""
    return sum(
        _cost_of_asian(char, encoding) + (FOREIGN if _between_letters(text, place) else 0)
        if encoding in CHARACTERS
        else _cost_of_letter(text, place)
        for place, char in enumerate(text)
        if not char.isascii()
    )


def _cost_of_asian(char: str, encoding: str) -> float:
    charset, first, last, size = CHARACTERS[encoding]
    kind = unicodedata.name(char, "").split(" ")[0].split("-")[0]
    if kind in ("HIRAGANA", "KATAKANA"):
        return SURE if encoding == "cp932" else STRANGE
    if char in FREQUENT_HANGUL:
        return USUAL
    if kind == "HALFWIDTH":
        return WRONG / 2  # of one byte
    if kind == "":  # a private character
        return WRONG
    if kind not in ASIAN:
        return RARE if unicodedata.category(char)[0] in "PZN" or kind == "FULLWIDTH" else STRANGE
    try:
        lead = char.encode(charset)[0]
    except UnicodeEncodeError:
        return WRONG
    return size if first <= lead <= last else STRANGE


def _between_letters(text: str, place: int) -> bool:
    """Whether a character has ASCII letters on both sides, as an accented letter that was misread has."""
    return 0 < place < len(text) - 1 and all(
        char.isascii() and char.isalpha() for char in (text[place - 1], text[place + 1])
    )


def _cost_of_letter(text: str, place: int) -> float:
    char, before, after = text[place], text[place - 1] if place else "", text[place + 1 : place + 2]
    script = _script(char)
    if unicodedata.category(char) not in ("Lu", "Ll") or script not in ("LATIN", "CYRILLIC"):
        return STRANGE
    near = [other for other in (before, after) if other.isalpha()]
    cost = FOREIGN if after == "\\" or any(_script(other) != script for other in near) else 0.0
    if (char.isupper() and before.islower()) or (char.islower() and after.isupper()):
        cost += CASE
    if script == "CYRILLIC":
        return cost + _cost_of_cyrillic(char, before)
    cost += SURE if char in USUAL_LATIN else RARE
    cost += sum(SURE for other in near if not other.isascii())  # accented letters are seldom side by side
    return cost + (SURE if char == "ß" and before not in VOWELS else 0)


def _cost_of_cyrillic(char: str, before: str) -> float:
    cost = SURE if "а" <= char.lower() <= "я" or char in "ёЁ" else RARE
    if char.isupper() and before.isupper():
        cost += 2
    if char.lower() in "ьъы" and not before.isalpha():
        cost += SURE
    return cost - (char.lower() in "оеаинтсрвлк")


def _script(char: str) -> str:
    return unicodedata.name(char, "").split(" ")[0]
