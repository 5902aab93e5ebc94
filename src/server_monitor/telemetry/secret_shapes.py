"""Secrets that are known by their own look, or by what is written around them, in any kind of text."""

import re
from collections.abc import Iterator
from typing import Final

from server_monitor.telemetry.secret_names import names_a_secret

Span = tuple[int, int]

# Each alternative is a secret as a whole, or its only group is.
_SHAPES: Final = re.compile(
    r"""
      -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | \bsmt_[A-Za-z0-9_-]{8,}                                                       # our own API tokens
    | (?<![\w-])eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)?    # JSON web tokens
    | \b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b                                       # Amazon
    | \b(?:AIza[\w-]{35,}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,})                        # Google
    | \b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})                           # GitHub
    | \bgl(?:pat|ptt|dt|rt|oas|cbt|soat|imt|ft)-[\w-]{16,}                          # GitLab
    | \b(?:xox[a-z]|xapp)-[\w-]{16,} | (?<=hooks\.slack\.com/services/)[\w/]{10,}    # Slack
    | \b(?:[rs]k_(?:live|test)_|whsec_)[A-Za-z0-9]{10,}                             # Stripe
    | \bsk-[A-Za-z0-9_-]{20,}
    | \bnpm_[A-Za-z0-9]{30,} | \bpypi-[\w-]{40,} | \bdckr_pat_[\w-]{20,} | \bshp(?:at|ss|ca)_[0-9a-fA-F]{32}
    | \bdo[opr]_v1_[0-9a-f]{64} | \bhv[sbr]\.[\w-]{20,} | \bhf_[A-Za-z0-9]{30,}
    | (?<![\w-])SG\.[\w-]{16,}\.[\w-]{16,} | \bkey-[0-9a-f]{32}\b | \bAGE-SECRET-KEY-1[A-Z0-9]{20,}
    | \b[0-9]{8,10}:AA[\w-]{33}\b                                                   # Telegram
    | ://[^/\s:@'"]*:([^\s/'"]+)@                                                   # user:password in a URL
    | ://([A-Za-z0-9_-]{20,})(?::[^\s/@]*)?@
    | (?i:\b(?:bearer)\s+)([A-Za-z0-9._~+/=-]{8,})
    | (?i:\b(?:basic)\s+)((?=\S*[0-9=])[A-Za-z0-9+/_=-]{8,})
    | (?i:\blogin\s+\S{1,128}\s+password\s+)([^\s'"]+)                                  # netrc(5)
    | (?i:[?&;](?:sig|signature|key|x-amz-signature|code)=)([^\s&\#'"]{8,})
    | (?i:\bidentified\s+(?:with\s+\S{1,64}\s+)?(?:by|as)\s+)(?P<value>(?P<quote>\\*+['"]).*?(?:(?P=quote)|\Z))
    """,
    re.VERBOSE | re.DOTALL,
)
_SQL_ACCOUNT: Final = re.compile(r"\b(?:alter|create)\s+(?:user|role|login)\b", re.IGNORECASE)
_SQL_PASSWORD: Final = re.compile(
    r"\bpassword\s*=?\s*(?P<value>(?P<quote>\\*['\"]).*?(?:(?P=quote)|\Z))", re.IGNORECASE
)
# `"name": "value"`, also where the quotes are escaped because it all stands in quotes once more.
_JSON: Final = re.compile(
    r"""
      (?<!\\)(?P<quote>\\*+["'])(?P<name>[\w.\ -]{1,128})(?P=quote)\s*+:\s*+
      (?P<value>
          "(?:[^"\\]|\\.)*+(?:"|\Z)
        | '(?:[^'\\]|\\.)*+(?:'|\Z)
        | (?P=quote)(?:(?!(?<!\\)(?P=quote)).)*+(?:(?P=quote)|\Z)
        | [^\s,}\]"'\\\[{]++
      )
    """,
    re.VERBOSE | re.DOTALL,
)
# A line of a file that is written: `password: two words`.
_YAML: Final = re.compile(r"\n[ \t]*+(?:-[ \t]++)?(?P<name>[\w.-]{1,128})[ \t]*+:[ \t]++(?P<value>\S[^\n]*+)")
_EMPTY: Final = frozenset({"true", "false", "null", "none", '""', "''"})


def spans(text: str) -> Iterator[Span]:
    """Where secrets stand in the text, in no order; they may overlap."""
    for found in _SHAPES.finditer(text):
        yield found.span(found.lastindex or 0) if found["quote"] is None else found.span("value")
    for named in (_JSON, _YAML):
        for found in named.finditer(text):
            if names_a_secret(found["name"]) and found["value"].lower() not in _EMPTY:
                yield found.span("value")
    if _SQL_ACCOUNT.search(text):
        for found in _SQL_PASSWORD.finditer(text):
            yield found.span("value")
