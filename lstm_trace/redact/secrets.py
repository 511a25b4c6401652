"""Find keys, tokens and passwords with the patterns of Yelp's detect-secrets; nothing is verified against anybody's server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from lstm_trace.redact import Detect, Found

_LEFT_OUT: Final = frozenset({"IPPublicDetector", "NpmDetector"})
"""An address is no secret; the pattern for npm takes seconds on a text full of slashes (ours is below)."""

_TOKEN: Final = re.compile(r"[\w.~+/=-]*")
_KEY_BLOCK: Final = re.compile(r"-----BEGIN[^-]*PRIVATE KEY[^-]*-----.*?(?:-----END[^-]*-----|\Z)", re.DOTALL)
_ASSIGNED: Final = re.compile(
    r"(?i)(?:passwords?|passwd|passphrase|secret|api[_-]?key|access[_-]?key|token|credentials?|\bpwd)[\w-]{0,20}"
    r"['\"]?\s*(?::|=>?|:=|\bis\b)\s*(?:\"(?P<quoted>[^\"]{4,})|'(?P<single>[^']{4,})|(?P<bare>[^\s'\"]{4,}))"
)
_MORE: Final = {  # formats that came after detect-secrets' last release, and npm's
    "npm": re.compile(r"_authToken=\s*\S+|\bnpm_\w{36}"),
    "github": re.compile(r"github_pat_\w{20,}"),
    "sk": re.compile(r"\bsk-(?:ant|proj|svcacct|or)-[\w-]{16,}"),
    "google": re.compile(r"\bAIza[\w-]{35}"),
    "huggingface": re.compile(r"\bhf_[A-Za-z]{30,}"),
    "bearer": re.compile(r"(?i)\bbearer\s+[\w.~+/=-]{12,}"),
}


def detector() -> Detect:
    """Return the detector of secrets: every pattern of detect-secrets, whole key blocks, and values after a word such as ``password:``."""
    patterns = [*_patterns(), *_MORE.values()]

    def detect(text: str) -> Iterator[Found]:
        for block in _KEY_BLOCK.finditer(text):
            yield Found(*block.span(), "SECRET")
        for assigned in _ASSIGNED.finditer(text):
            yield Found(*assigned.span(assigned.lastgroup or 0), "SECRET")
        for pattern in patterns:
            for hit in pattern.finditer(text):
                # Some patterns stop inside the secret (a web token's before its signature): the rest of the token goes too.
                rest = _TOKEN.match(text, hit.end())
                yield Found(hit.start(), rest.end() if rest else hit.end(), "SECRET")

    return detect


def _patterns() -> Iterator[re.Pattern[str]]:
    # The patterns themselves: a plugin's own analyze_string() returns what its last group matched, of a GitHub token only "ghp".
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    plugins: Any = get_mapping_from_secret_type_to_class()
    for plugin in plugins.values():
        denylist: Any = getattr(plugin, "denylist", ())
        if plugin.__name__ not in _LEFT_OUT and isinstance(denylist, (list, tuple, set)):
            yield from denylist
