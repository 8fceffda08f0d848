"""Written forms that the normalising libraries misread, rewritten into ones that they read.

`plain_characters` takes out what is not seen and writes look-alikes in ASCII; then `spelled_out`
rewrites addresses, amounts, abbreviations, decades and their kin, each by its own rule.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_SPELLINGS = str.maketrans(
    {"‐": "-", "‑": "-", "‒": "-", "º": "°", "№": "No. ", "`": "'", "℃": "°C", "℉": "°F"}
)
# Fractions in one character, with a preceding digit: "1½", "⅓ cup".
_FRACTION = re.compile(r"(?:(\d)\s?)?([¼½¾⅐-⅞↉])")


def plain_characters(text: str) -> str:
    """Text without invisible characters, and with letters and digits in their plain shape."""
    text = "".join(map(_plain, unicodedata.normalize("NFC", text).translate(_SPELLINGS)))
    return _FRACTION.sub(_fraction, unicodedata.normalize("NFC", text))


def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf" or "\ufe00" <= character <= "\ufe0f":  # soft hyphens and their kin
        return ""
    if category in ("Cc", "Zs"):
        return " "
    # Ligatures, full-width letters and digits: but superscripts keep their height.
    return character if category == "No" else unicodedata.normalize("NFKC", character)


def _fraction(match: re.Match[str]) -> str:
    fraction = unicodedata.normalize("NFKC", match[2]).replace("\N{FRACTION SLASH}", "/")
    return fraction if match[1] is None else f"{match[1]} and {fraction}"


_BEFORE_NUMBER = {
    "vol": "volume", "vols": "volumes", "ch": "chapter", "chap": "chapter", "sec": "section",
    "p": "page", "pp": "pp.", "art": "article", "para": "paragraph", "ca": "circa",
    "nr": "number", "no": "no.", "nos": "nos.", "fig": "fig.", "figs": "figs.", "eq": "equation",
    "ext": "extension", "tel": "telephone", "max": "maximum", "min": "minimum", "est": "estimated",
}  # fmt: skip
_BEFORE_WORD = {
    "dept": "department", "incl": "including", "excl": "excluding", "est": "estimated",
    "etc": "et cetera", "govt": "government", "max": "maximum", "min": "minimum",
    "vs": "vs.", "al": "al.", "bros": "bros.", "esp": "especially", "misc": "miscellaneous",
}  # fmt: skip
_SPELLED = {"approx": "approximately", **_BEFORE_WORD, **_BEFORE_NUMBER}
_UNITS = r"lbs?|oz|ft|in|yds?|mi|kg|g|hrs?|mins?|secs?|gal|cm|mm|km|mph|ml|wks?|mos?|yrs?"

UNFINISHED = re.compile(
    rf"(?<![\w.])(?<!\d )(?:{'|'.join(_BEFORE_NUMBER)})\.(?=\s?\d)"
    rf"|(?<=\d)(?:\s|-)?(?:{_UNITS})\.(?=,?\s+(?-i:[a-z][a-z])|[,;:])"
    rf"|(?<![\w.])(?:{'|'.join(_BEFORE_WORD)})\.(?=,?\s+(?-i:[a-z])|[,;:])"
    r"|(?<![\w.])approx\.(?!\s*$)",
    re.IGNORECASE,
)
"""Abbreviations whose full stop ends no sentence; each match ends with the stop."""


def _without_stop(match: re.Match[str]) -> str:
    word = match[0][:-1]
    spoken = _SPELLED.get(word.lower(), word)
    return match[0] if spoken.endswith(".") else spoken  # the libraries know it with its stop


_SIGNS = {
    ".": "dot", "@": "at", "/": "slash", "_": "underscore", "-": "dash", "+": "plus",
    "?": "question mark", "=": "equals", "&": "and", "%": "percent", "#": "hash", ":": "colon",
}  # fmt: skip
_SCALES = {
    "k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million",
    "bn": "billion", "B": "billion", "b": "billion", "tn": "trillion", "T": "trillion",
}  # fmt: skip
_TENS = {
    "10": "tens", "20": "twenties", "30": "thirties", "40": "forties", "50": "fifties",
    "60": "sixties", "70": "seventies", "80": "eighties", "90": "nineties", "00": "two thousands",
}  # fmt: skip
_ADDRESS = (
    r"\b[\w.+%-]*\w@(?:[\w-]+\.)+[a-z]{2,}\b"
    r"|\b(?:https?|ftp)://[^\s<>\"')\]]*[\w/]"
    r"|(?<![\w@.-])(?:www\.[\w.-]+\w|(?:[\w-]+\.)+(?:com|org|net|edu|gov|info|io|uk|eu|de))"
    r"(?:/[\w./%#?=&~+-]*[\w/])?(?![\w@])"
)
_PHONE = (
    r"(?<![\w.])(?:\+\d{1,3}[ .-])?\(?\d{3}\)?[ .-]\d{3}[.-]\d{4}\b"
    r"|(?<![\w.])(?=\+(?:[ ()./-]{0,2}\d){7,15}(?!\d))\+\d{1,15}(?:[ ./-]?\(?\d{1,9}\)?)*\b"
)


def spelled_out(text: str) -> str:
    """Text of plain characters with the misread forms rewritten."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _address(match: re.Match[str]) -> str:
    """A mail or web address: its parts, and its signs as words."""
    text = re.sub(r"^[a-z]+://", "", match[0], flags=re.I)
    parts = re.findall(r"[^\W\d_]+|\d+|[^\w\s]|_", text)
    spelled = {"www", "uk", "eu", "de", "io"}
    return " ".join(" ".join(p.upper()) if p in spelled else _SIGNS.get(p, p) for p in parts)


def _digits(match: re.Match[str]) -> str:
    """A telephone number: digit by digit, in its groups."""
    groups = [" ".join(group) for group in re.findall(r"\d+", match[0].replace("(0)", " "))]
    return ("plus " if match[0].startswith("+") else "") + ", ".join(groups)


def _year_of_century(match: re.Match[str]) -> str:
    number = match[1]
    return f"oh {number[1]}" if number[0] == "0" and number[1] != "0" else number


_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Addresses first, since they hold signs of all kinds.
        (f"(?i){_ADDRESS}", _address),
        (r"^\s*\(?(\d{1,3})[.)]\s+(?=[^\W\d_])", r"\1, "),  # the number of a line
        (f"(?i){UNFINISHED.pattern}", _without_stop),
        (r"(?<=[^\d\s])\s+-{1,3}\s+(?=\S)|(?<=\w)--+(?=\w)", " — "),
        (r"(?<!\w)@(?=\w)|(?<=\s)@(?=\s)", "at "),
        (r"\bC\+\+", "C plus plus"),
        (r"(?<=\d)\s?[xX]\s?(?=\d)", " by "),
        # Money and large numbers.
        (r"(\$\d[\d,.]*)\s?(k|K|m|M|b|B|T)\b", lambda m: f"{m[1]} {_SCALES[m[2]]}"),
        (r"\b(\d[\d,]*(?:\.\d+)?)\s?(mn|bn|tn)\b", lambda m: f"{m[1]} {_SCALES[m[2]]}"),
        # Decades and years of a century.
        (r"\b(1\d|20)([1-9]0)['’]s\b", r"\1\2s"),
        (r"(?<![\w.,])['’‘]?(\d0)['’]?s\b", lambda match: _TENS[match[1]]),
        (r"(?<![\w.,'’])['’‘](\d\d)\b(?!['’\w]|[.,]\d)", _year_of_century),
        # Numbers.
        (r"(?<![\w.])\.(?=\d)", "0."),
        (r"(?<![\d/.,])(\d{1,3})\s+(?=([1-9]|1[0-5])/(?:2|3|4|5|6|8|10|16)\b(?!/))", r"\1 and "),
        (r"\b(24|50)/(7|50)\b", r"\1 \2"),
        (r"\b(\d{1,3}):(\d)\b(?![:.]?\d)", r"\1 to \2"),
        (_PHONE, _digits),
        (r"\bv\.?\s?(?=\d+\.\d)", "version "),
        (r"(?<![\w-])(?!C-1[34]\b|U-23\d\b)([A-Z])-(?=\d)", r"\1 "),  # F-16 is not fluorine
        (r"(?<=[^\W\d_]{3})/(?=[^\W\d_]{2})|(?<=[^\W\d_]{2})/(?=[^\W\d_]{3})", " "),
    )
)
