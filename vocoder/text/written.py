# ruff: noqa: E501  (a rule is a line)
"""Written forms that the normalising libraries misread, rewritten into ones that they read.

Three steps, before the libraries: `without_markup` takes out tags and reads entities;
`plain_characters` takes out what is not seen and writes look-alikes in ASCII; `spelled_out` rewrites
addresses, powers, amounts, measures, decades and their kin. Each rule matches one written form and
leaves all other text as it is. `UNFINISHED` finds the full stops that end no sentence.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable

# -- characters ------------------------------------------------------------------------------------

# Compatibility characters that are letters, digits or punctuation in another shape: ligatures,
# full-width forms, Roman numerals, circled numbers, mathematical letters. Not all of Unicode's:
# "½" would lose its meaning, and superscripts their height.
_LOOKALIKES = re.compile(
    "[\uff01-\uff5e\uff61-\uffdc\uffe0-\uffe6\ufb00-\ufb06\u2160-\u217f\u2460-\u2473"
    "\U0001d400-\U0001d7ff\u02b0-\u02b8\u1d2c-\u1d6a\u2102-\u2115\u2119-\u211d]"
)
_SPELLINGS = str.maketrans(
    {"‐": "-", "‑": "-", "‒": "-", "⁃": "-", "﹣": "-", "º": "°", "№": "No. ", "`": "'"}
)
_RAISED_ORDINAL = re.compile("(?<=\\d)(ˢᵗ|ⁿᵈ|ʳᵈ|ᵗʰ)")
_THIN_SPACED = re.compile("(?<=\\d)[\u2009\u202f\u00a0](?=\\d{3}(?!\\d))")


def plain_characters(text: str) -> str:
    """Text without invisible characters, and with letters and digits in their plain shape.

    Soft hyphens, zero-width characters, direction marks and variation selectors vanish; control
    characters become spaces.
    """
    text = unicodedata.normalize("NFC", text)
    text = _RAISED_ORDINAL.sub(lambda match: unicodedata.normalize("NFKC", match[1]), text)
    text = "".join(map(_visible, text)).translate(_SPELLINGS)
    text = _LOOKALIKES.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return _THIN_SPACED.sub("", unicodedata.normalize("NFC", text))


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":  # digits of all scripts
        return str(unicodedata.decimal(character))
    if category == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""
    return " " if category == "Cc" else character


# -- markup and abbreviations ----------------------------------------------------------------------

# Attributes need a value, so that "a <b and c> d" stays a comparison.
_TAG = re.compile(
    r"""</?([A-Za-z][\w:-]*)((?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s<>"']+))*)\s*/?>"""
)
_UNREAD = re.compile(
    r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<\?.*?\?>|<!DOCTYPE\b[^<>]*>", re.S | re.I
)
_ALIAS = re.compile(r"""<sub\s+alias\s*=\s*(?:"([^"]*)"|'([^']*)')\s*>.*?</sub\s*>""", re.S)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.S)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[A-Za-z]\w{1,31});")
_BLOCK = re.compile(
    r"p|div|li|[uod]l|d[td]|tr|table|h[1-6]|blockquote|section|article|s|body|speak"
)


def without_markup(text: str) -> str:
    """Text without tags of HTML or SSML, and with its character entities as characters.

    A block such as `<p>` becomes an empty line, `<break>` a comma, `<sub alias>` its alias.
    """
    for _ in range(2 if "&amp;" in text else 1):  # entities are often escaped twice
        text = _ENTITY.sub(_entity, text)
    text = _CDATA.sub(r"\1", _ALIAS.sub(lambda match: match[1] or match[2] or "", text))
    return _TAG.sub(_tag, _UNREAD.sub(" ", text))


def _entity(match: re.Match[str]) -> str:
    # Signs that were escaped are no tags.
    signs = {"<": " less than ", ">": " greater than "}
    character = html.unescape(match[0])
    return signs.get(character, character)


def _tag(match: re.Match[str]) -> str:
    name = match[1].lower()
    if name == "break":
        spoken_before = match.string[: match.start()].rstrip()
        silent = re.search(r"\b(?:none|0m?s)\b", match[2])
        return " " if silent or not spoken_before or spoken_before[-1] in ".,;:?!>" else ", "
    if _BLOCK.fullmatch(name):
        return "\n\n"
    return " " if name in ("br", "td", "th", "hr", "w") else ""


_BEFORE_NUMBER = (
    r"vols?|approx|chs?|chap|secs?|nos?|nr|figs?|pp?|arts?|paras?|ca|eqs?|op|ext|tel|est|max|min|avg"
    r"|bk|col|lns?|apt|rm|ver|rev|pts?|app|tab|ser|div|cat|ref|circ|dist|vv?|ll?|nn?"
)
_UNITS = r"lbs?|oz|ft|in|yds?|mi|kg|g|hrs?|mins?|secs?|gal|qts?|pts?|tsps?|tbsps?|doz|cm|mm|km|mph|ml|wks?|mos?|yrs?|sq|cu"
_BEFORE_WORD = (
    r"approx|dept|incl|excl|est|etc|vs|al|assn|bros|govt|max|min|avg|misc|temp|esp|resp|viz|cf"
)

UNFINISHED = re.compile(
    rf"(?<![\w.])(?<!\d )(?:{_BEFORE_NUMBER})(\.)(?=\s?\d)"
    rf"|(?<=\d)(?:\s|-)?(?:{_UNITS})(\.)(?=,?\s+(?-i:[a-z][a-z])|\s+[x×]\s|[,;:])"
    rf"|(?<![\w.])(?:{_BEFORE_WORD})(\.)(?=,?\s+(?-i:[a-z])|[,;:])"
    r"|(?<![\w.])approx(\.)(?!\s*$)"
    r"|^\s*[\d¼½¾⅓⅔][\d./]*\s?(?:tbsps?|tsps?)(\.)(?=\s+\w)",
    re.IGNORECASE,
)
"""Abbreviations whose full stop ends no sentence: one of the groups is the stop."""


def _without_stop(match: re.Match[str]) -> str:
    word = match[0][:-1]
    # Others are read by the libraries, which know them with their stop.
    return {"vol": "volume", "vols": "volumes", "approx": "approximately", "dept": "department",
            "ch": "chapter", "chs": "chapters", "chap": "chapter", "sec": "section", "secs": "sections",
            "p": "page", "art": "article", "arts": "articles", "para": "paragraph", "paras": "paragraphs",
            "ca": "circa", "nr": "number", "ext": "extension", "tel": "telephone",
            "est": "estimated", "max": "maximum", "min": "minimum", "avg": "average",
            "incl": "including", "excl": "excluding", "etc": "et cetera",
            "govt": "government", "misc": "miscellaneous", "esp": "especially", "eq": "equation",
            "eqs": "equations", "apt": "apartment", "rev": "revision", "ver": "version",
            "rm": "room", "bk": "book", "col": "column", "app": "appendix", "cat": "category",
            "ref": "reference", "temp": "temperature",
            }.get(word.lower(), match[0] if not word[0].isspace() and not _UNIT.fullmatch(word) else word)  # fmt: skip


_UNIT = re.compile(rf"-?(?:{_UNITS})")
_SPOONS = r"(?<![\w.])(?P<number>\d*[¼½¾⅓⅔]|\d+(?:[./]\d+)?)\s?(?P<spoon>tbsp|tsp)s?(?:\.(?=\s*[\w,;:)])|\b)"
_MONTH = "(?P<month>0?[1-9]|1[0-2])"

# -- words -----------------------------------------------------------------------------------------

_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni")
_SUBSCRIPT = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SIGNS = {
    ".": "dot", "@": "at", "/": "slash", "_": "underscore", "-": "dash", "+": "plus", "?": "question mark",
    "=": "equals", "&": "and", "%": "percent", "#": "hash", ":": "colon", "~": "tilde",
}  # fmt: skip
_CURRENCIES = {
    "$": "dollars", "£": "pounds", "€": "euros", "¥": "yen", "₹": "rupees", "₩": "won",
    "₽": "rubles", "₪": "shekels", "₺": "lira", "₿": "bitcoin", "฿": "baht", "₫": "dong",
}  # fmt: skip
_DOLLARS = {
    "US": "U.S.", "A": "Australian", "AU": "Australian", "C": "Canadian", "CA": "Canadian",
    "NZ": "New Zealand", "HK": "Hong Kong", "S": "Singapore",
}  # fmt: skip
_SCALES = {
    "k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million",
    "mln": "million", "mm": "million", "bn": "billion", "B": "billion", "b": "billion",
    "bln": "billion", "tn": "trillion", "T": "trillion", "trn": "trillion",
}  # fmt: skip
_TENS = {
    "10": "tens", "20": "twenties", "30": "thirties", "40": "forties", "50": "fifties",
    "60": "sixties", "70": "seventies", "80": "eighties", "90": "nineties", "00": "two thousands",
}  # fmt: skip

_AMOUNT = r"\d[\d,]*(?:\.\d+)?"
_SCALE = (
    r"\s?(?:(?:k|K|mn|mln|mm|m|M|bn|bln|b|B|tn|trn|T)\b|thousand\b|million\b|billion\b|trillion\b)"
)
_SIGN = "[" + "".join(_CURRENCIES) + "]"
_TOP_LEVEL = r"(?:com|org|net|edu|gov|info|io|ai|dev|app|co|uk|us|eu|de|fr|ca|au|ch|tv|me)"
_HOST = rf"(?:[\w-]+\.)+{_TOP_LEVEL}"

Rule = tuple[re.Pattern[str], "str | Callable[[re.Match[str]], str]"]


def spelled_out(text: str) -> str:
    """Text of plain characters with the misread forms rewritten."""
    text = _NUMBERED.sub(_numbered, text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    if _ONLY_INCHES.search(text) and not _OTHER_QUOTES.search(text):
        text = _ONLY_INCHES.sub(lambda match: _counted(match[1], "inch", "inches"), text)
    return text


def _address(match: re.Match[str]) -> str:
    """A mail or web address: its parts, and its signs as words."""
    text = re.sub(r"^[a-z]+://", "", match[0], flags=re.I)
    parts = re.findall(r"[^\W\d_]+|\d+|[^\w\s]|_", text)
    spoken = []
    for index, part in enumerate(parts):
        before = parts[index - 1] if index else ""
        if part in _SIGNS:
            spoken.append(_SIGNS[part])
        elif part.lower() == "www" or (
            before == "." and len(part) == 2 and part.isalpha() and part.lower() != "co"
        ):
            spoken.append(" ".join(part.upper()))
        else:
            spoken.append(part)
    return " ".join(spoken)


def _counted(number: str, one: str, many: str) -> str:
    return f"{number} {one if number == '1' else many}"


def _feet_and_inches(match: re.Match[str]) -> str:
    inches = _counted(match[2], "inch", "inches")
    return f"{_counted(match[1], 'foot', 'feet')} {inches}"


def _angle(match: re.Match[str]) -> str:
    parts = [_counted(match[1], "degree", "degrees"), _counted(match[2], "minute", "minutes")]
    if match[3]:
        parts.append(_counted(match[3], "second", "seconds"))
    return " ".join(parts)


def _scale(written: str | None) -> str:
    written = (written or "").strip()
    return f" {_SCALES.get(written, written)}" if written else ""


def _currency_range(match: re.Match[str]) -> str:
    low, high = match["low"] + _scale(match["low_scale"]), match["high"] + _scale(match["scale"])
    return f"{low} to {high} {_CURRENCIES[match['sign']]}"


def _dollars(match: re.Match[str]) -> str:
    unit = "dollar" if match["amount"] == "1" and not match["scale"] else "dollars"
    return f"{match['amount']}{_scale(match['scale'])} {_DOLLARS[match['country']]} {unit}"


def _power(match: re.Match[str]) -> str:
    exponent = match[2].translate(_SUPERSCRIPT)
    if exponent in ("2", "3") and not match[1].isdigit():
        return match[0]  # squared, cubed, and units, which the libraries read
    word = {"2": "squared", "3": "cubed"}.get(exponent)
    if word:
        return f"{match[1]} {word} "
    exponent = exponent.replace("-", "minus ").replace("+", "plus ")
    return f"{match[1]} to the power of {exponent} "


def _formula(match: re.Match[str]) -> str:
    """H₂SO₄ as H 2 S O 4."""
    return " ".join(match[0].translate(_SUBSCRIPT).upper()).strip()


def _numbered(match: re.Match[str]) -> str:
    """ "1. ", "(1) " or "a) " before a line."""
    return f"{(match[1] or match[2] or match[3]).upper()}, "


def _spoons(match: re.Match[str]) -> str:
    spoon = "tablespoon" if match["spoon"].lower() == "tbsp" else "teaspoon"
    one = re.fullmatch(r"1|\d/\d|[¼½¾⅓⅔]", match["number"])
    return f"{match['number']} {spoon if one else spoon + 's'}"


def _digits(match: re.Match[str]) -> str:
    """A telephone number: digit by digit, in its groups."""
    plus = "plus " if match[0].startswith("+") else ""
    abroad = match[0].startswith(("+", "00"))  # where "(0)" is for callers within the country
    number = match[0].replace("(0)", " ") if abroad else match[0]
    groups = [" ".join(group) for group in re.findall(r"\d+", number)]
    return plus + ", ".join(groups)


def _year_of_century(match: re.Match[str]) -> str:
    number = match[1]
    return f"oh {number[1]}" if number[0] == "0" and number[1] != "0" else number


def _timestamp(match: re.Match[str]) -> str:
    """2026-11-28T09:05:00Z as a date, a time and its zone."""
    hour, minute, second = int(match["hour"]), match["minute"], int(match["second"] or 0)
    time = f"{hour}:{minute}" if hour or minute != "00" else "midnight"
    if minute == "00" and hour:
        time = f"{hour} o'clock" if hour <= 12 else f"{hour} hundred hours"
    seconds = f" and {_counted(str(second), 'second', 'seconds')}" if second else ""
    zone = match["zone"] or ""
    if zone in ("Z", "z") or re.fullmatch(r"[+-]00(?::?00)?", zone):
        zone = " UTC"
    elif zone:
        hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
        zone = f" UTC {'plus' if zone[0] == '+' else 'minus'} {hours}" + (
            f" {minutes}" if minutes else ""
        )
    return f"{match['year']}-{match['month']}-{match['day']} at {time}{seconds}{zone}"


def _european(match: re.Match[str]) -> str:
    """1.299,00 as 1,299, and 12,50 as 12.50."""
    whole, _, part = match[0].replace(".", "").replace(" ", "").replace("'", "").partition(",")
    whole = f"{int(whole):,}"  # four digits without a comma would be read as a year
    return whole if not part.strip("0") else f"{whole}.{part}"


_DATE = r"(?P<year>[12]\d{3})(?P<sep>[-/.]?)(?P<month>0[1-9]|1[0-2])(?P=sep)(?P<day>[0-2]\d|3[01])"
_TIME = r"(?P<hour>[01]\d|2[0-3]):?(?P<minute>[0-5]\d)(?::?(?P<second>[0-5]\d)(?:[.,]\d+)?)?"
_EURO = r"(?:€|euros?\b|EUR\b)"
_NUMBERED = re.compile(r"^\s*(?:(\d{1,3})[.)]|\((\d{1,3}|[a-hA-H])\)|([a-hA-H])\))\s+(?=[^\W\d_])")
_TERM = r"(?:\d+(?:\.\d+)?|[a-zA-Z])"
_ONLY_INCHES = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s?[\"”″](?!\w)")
_OTHER_QUOTES = re.compile(r"(?<!\d)(?<!\d )[\"“”]")

_RULES: tuple[Rule, ...] = (
    # Addresses first, since they hold signs of all kinds.
    (re.compile(r"\b[\w.+%-]*\w@(?:[\w-]+\.)+[a-z]{2,}\b", re.I), _address),
    (re.compile(r"\b(?:https?|ftp)://[^\s<>\"')\]]*[\w/]", re.I), _address),
    (re.compile(rf"(?<![\w@.-])(?:www\.[\w.-]+\w|{_HOST})(?:/[\w./%#?=&~+-]*[\w/])?(?![\w@])", re.I), _address),
    (re.compile(rf"(?<![\w.-]){_DATE}(?:T|\s(?=\d\d:)){_TIME}\s?(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?(?!\w)", re.I), _timestamp),
    (re.compile(r"(?<![\w/.-])([12]\d{3})[/.](0?[1-9]|1[0-2])[/.](0?[1-9]|[12]\d|3[01])(?![\w/])(?!\.\d)"), lambda match: f"{match[1]}-{match[2]:0>2}-{match[3]:0>2}"),
    (re.compile(r"(?<![\w.,])\d{1,3}(?:[. ']\d{3})+,\d{1,2}(?![\w]|[.,]\d)"), _european),
    (re.compile(r"(?<![\w.,])\d{1,3}(?:\.\d{3}){2,}(?![\w]|[.,]\d)"), _european),
    (re.compile(rf"(?<![\w.,])\d{{1,3}}(?:\.\d{{3}})+(?=\s?{_EURO})"), _european),
    (re.compile(r"(?<![\w.,])\d{1,3}(?:'\d{3})+(?![\w'])"), _european),
    (re.compile(rf"(?<![\w.,])\d+,\d{{1,2}}(?=\s?(?:{_EURO}|%|°|(?:k|c|m)?[gm]\b|(?:kilo|centi|milli)?(?:gram|met(?:er|re))s?\b|l\b|lit(?:er|re)s?\b|percent\b|degrees?\b|£))|(?<=€)\s?\d+,\d{{2}}(?!\d)"), _european),
    (re.compile(rf"(?<![\w.,/-])(?P<day>0?[1-9]|[12]\d|3[01])\.{_MONTH}\.(?P<year>[12]\d{{3}})(?![\w/])(?!\.\d)"), lambda match: f"{match['year']}-{match['month']:0>2}-{match['day']:0>2}"),
    (re.compile(_SPOONS, re.I), _spoons),
    (UNFINISHED, _without_stop),
    (re.compile(r"(\d)\s-\s(\d[\d.,]*\s?=)"), r"\1 minus \2"),
    (re.compile(rf"(?<=\s=\s){_TERM}(?:\s[-+]\s{_TERM})+(?!\w)|(?<!\w){_TERM}(?:\s[-+]\s{_TERM})+(?=\s=\s)"), lambda match: match[0].replace(" - ", " minus ")),
    (re.compile(r"(?<=[^\d\s])\s+-{1,3}\s+(?=\S)|(?<=\d)\s+-{1,3}\s+(?=[^\d\s$£€])|(?<=\w)--+(?=\w)"), " — "),
    (re.compile(r"(?<!\w)@(?=\w)|(?<=\s)@(?=\s)"), "at "),
    (re.compile(r"\bC\+\+"), "C plus plus"),
    (re.compile(r"\b([CF])#(?!\w)"), r"\1 sharp"),
    # Raised and lowered.
    (re.compile(r"(\d+|(?<![^\W\d_])[^\W\d_]|\))([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+)"), _power),
    (re.compile(r"(?<=[^\s⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻])[⁰¹⁴⁵⁶⁷⁸⁹][⁰¹²³⁴⁵⁶⁷⁸⁹]*|(?<=[.,;!?”\"])[²³]"), ""),  # footnotes
    (re.compile(r"\b(?:[A-Z][a-z]?\d*[₀₁₂₃₄₅₆₇₈₉]*)*[A-Z][a-z]?[₀₁₂₃₄₅₆₇₈₉]+(?:[A-Z][a-z]?[₀₁₂₃₄₅₆₇₈₉]*)*"), _formula),
    (re.compile(r"[₀₁₂₃₄₅₆₇₈₉]+"), lambda match: " " + match[0].translate(_SUBSCRIPT) + " "),
    (re.compile(r"\b(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})\b"), lambda match: f"{match[1]} times 10 to the power of " + match[2].replace("-", "minus ").lstrip("+")),
    # Angles before feet and inches, which share their signs.
    (re.compile(r"(\d+)\s?°\s?(\d+)\s?['’′]\s?(?:(\d+(?:\.\d+)?)\s?(?:[\"”″]|''|′′))?"), _angle),
    (re.compile(r"(?<![\w.])(\d+)\s?['’′]\s?-?(\d+(?:\.\d+)?)\s?(?:[\"”“″]|''|′′|’’)"), _feet_and_inches),
    (re.compile(r"(?<![\w.])(\d+)\s?(?:ft|foot|feet)\.?,?\s?(\d+)\s?(?:in\.|in\b(?!\s[a-z]+\b(?<!tall)(?<!long)(?<!high)(?<!wide)(?<!deep)))"), _feet_and_inches),
    (re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s?(?:′′|″)"), lambda match: _counted(match[1], "inch", "inches")),
    (re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s?(?:′|['’](?=\s(?:tall|long|wide|high|deep|by|x)\b))"), lambda match: _counted(match[1], "foot", "feet")),
    (re.compile(r"(?<=\d)\s?[xX]\s?(?=\d)"), " by "),
    # Money.
    (re.compile(rf"\b(?P<country>US|AU|CA|NZ|HK|[ACS])\$\s?(?P<amount>{_AMOUNT})(?P<scale>{_SCALE})?"), _dollars),
    (re.compile(rf"(?P<sign>{_SIGN})\s?(?P<low>{_AMOUNT})(?P<low_scale>{_SCALE})?\s?(?:-|–|—|to)\s?(?:(?P=sign)\s?)?(?P<high>{_AMOUNT})(?P<scale>{_SCALE})?(?![\w-])"), _currency_range),
    (re.compile(rf"(?P<sign>{_SIGN})\s?(?P<amount>{_AMOUNT})\s?(?P<scale>bn|bln|tn|trn|mn|mln|mm)\b"), lambda match: f"{match['sign']}{match['amount']}{_scale(match['scale'])}"),
    (re.compile(rf"(?P<sign>[₩₽₪₺₿฿₫])\s?(?P<amount>{_AMOUNT})(?P<scale>{_SCALE})?"), lambda match: f"{match['amount']}{_scale(match['scale'])} {_CURRENCIES[match['sign']]}"),
    (re.compile(r"¢\s?(\d+)"), r"\1¢"),
    (re.compile(r"\b(\d[\d,]*(?:\.\d+)?)\s?(bn|bln|tn|trn|mln)\b"), lambda match: match[1] + _scale(match[2])),
    (re.compile(r"(?<=\d)\s?/\s?(?=(?:second|minute|hour|day|night|week|month|quarter|year|person|head|piece|item|page|unit|kg|lb)\b)"), " per "),
    # Decades and years of a century.
    (re.compile(r"\b(1\d|20)([1-9]0)['’]s\b"), r"\1\2s"),
    (re.compile(r"(?<![\w.,])['’‘]?(\d0)['’]?s\b"), lambda match: _TENS[match[1]]),
    (re.compile(r"(?<![\w.,'’])['’‘](\d\d)\b(?!['’\w]|[.,]\d)"), _year_of_century),
    # Numbers.
    (re.compile(r"(?<![\w.])\.(?=\d)"), "0."),
    (re.compile(r"(?<![\d/.,])(\d{1,3})\s+(?=([1-9]|1[0-5])/(?:2|3|4|5|6|8|10|16)\b(?!/))"), r"\1 and "),
    (re.compile(r"\b24/7\b"), "24 7"),
    (re.compile(r"\b50/50\b"), "50 50"),
    (re.compile(r"\b(\d{1,3}):(\d)\b(?![:.]?\d)"), r"\1 to \2"),
    (re.compile(r"(?<![\w.])(?:\+\d{1,3}[ .-])?\(?\d{3}\)?[ .-]\d{3}[.-]\d{4}\b"), _digits),
    (re.compile(r"(?<![\w.])(?=\+(?:[ ()./-]{0,2}\d){7,15}(?!\d))\+\d{1,15}(?:[ ./-]?\(?\d{1,9}\)?)*\b"), _digits),
    (re.compile(r"(?<![\w.+-])(?:\(0\d{1,4}\)|0\d{1,4})(?:[ /-]\d{3,8}){1,3}\b(?![.,/]\d)|(?<![\w.+-])00[1-9]\d{0,2}(?:[ /-]\(0\))?(?:[ /-]?\d{2,8}){2,5}\b(?![.,/]\d)|(?<![\w.])0\d(?:[ .]\d\d){4}\b"), _digits),
    (re.compile(r"\bv\.?\s?(?=\d+\.\d)"), "version "),
    (re.compile(r"(?<![\w-])(?!C-1[34]\b|U-23\d\b)([A-Z])-(?=\d)"), r"\1 "),  # F-16 is not fluorine
    (re.compile(r"(?<=[^\W\d_]{3})/(?=[^\W\d_]{2})|(?<=[^\W\d_]{2})/(?=[^\W\d_]{3})"), " "),
)  # fmt: skip
