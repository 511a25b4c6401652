"""Find personal data by pattern and checksum, with the recognizers of Microsoft Presidio: no language model, no network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from lstm_trace.redact import Detect, Found

RECOGNIZERS: Final = (
    "EmailRecognizer",
    "CreditCardRecognizer",
    "IbanRecognizer",
    "IpRecognizer",
    "MacAddressRecognizer",
    "UsSsnRecognizer",
)
"""Presidio's pattern recognizers that are used by default; it has dozens more, by country."""

REGIONS: Final = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")
"""Where telephone numbers without a country code are looked for: Presidio's own choice."""

_LEAST_SCORE: Final = 0.4
"""Presidio gives less to what any row of digits would match."""

_PERHAPS_A_PHONE: Final = re.compile(
    r"(?<![\w.])(?:\+\d[\d\s().\-/]{5,18}\d"  # with a country code
    r"|(?:\(\d|\(?0\d)[\d\s().\-/]{5,16}\d"  # an area code in brackets, or the 0 in front of it
    r"|[2-9]\d\d[\s.\-]?[2-9]\d\d[\s.\-]?\d{4})(?!\w)"  # North America's
)
_DATE: Final = re.compile(r"(?:19|20)\d\d[-/.]\d\d[-/.]\d\d")
_ASKS_THE_NETWORK: Final = frozenset({"EmailRecognizer", "UrlRecognizer"})


def detector(recognizers: Sequence[str] = RECOGNIZERS, regions: Sequence[str] = REGIONS) -> Detect:
    """Return the detector of personal data: what Presidio's ``recognizers`` find, and telephone numbers valid in one of ``regions``.

    Names of people and places need a language model and are not found. Raises ValueError for a recognizer that Presidio does not have.
    """
    from presidio_analyzer import predefined_recognizers as presidio

    if unknown := [name for name in recognizers if not hasattr(presidio, name)]:
        raise ValueError(f"recognizers={unknown!r}: accepted are the pattern recognizers of presidio_analyzer.predefined_recognizers")
    made = [_made(presidio, name) for name in recognizers]

    def detect(text: str) -> Iterator[Found]:
        for recognizer in made:
            for each in recognizer.analyze(text, recognizer.supported_entities, None):
                if each.score >= _LEAST_SCORE:
                    yield Found(each.start, each.end, each.entity_type)
        yield from _phones(text, regions)

    return detect


def _made(presidio: Any, name: str) -> Any:
    recognizer = getattr(presidio, name)()
    if name in _ASKS_THE_NETWORK:
        # tldextract would fetch the list of top-level domains; what looks like an address is one, also inside a company's network.
        recognizer.validate_result = lambda text: None
    return recognizer


def _phones(text: str, regions: Iterable[str]) -> Iterator[Found]:
    # Presidio's own recognizer gives the whole text to phonenumbers' matcher, once a region: 0.8 s for 4 KB of prose with numbers in it.
    from phonenumbers import NumberParseException, is_valid_number, parse

    for candidate in _PERHAPS_A_PHONE.finditer(text):
        said = candidate.group()
        if _DATE.match(said):
            continue
        for region in (None,) if said.startswith("+") else regions:
            try:
                valid = is_valid_number(parse(said, region))
            except NumberParseException:
                break  # too short or too long, wherever it is
            if valid:
                yield Found(*candidate.span(), "PHONE_NUMBER")
                break
