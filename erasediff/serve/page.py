"""The page at ``/``, and its security headers."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

HTML = Path(__file__).with_name("page.html").read_bytes()


def _allowed(tag: str) -> str:
    """The digest of the page's only element of this kind (Content Security Policy 3, §2.3.1)."""
    match = re.search(f"<{tag}>(.*?)</{tag}>".encode(), HTML, re.DOTALL)
    assert match is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(match[1]).digest()).decode()}'"


_POLICY = (
    f"default-src 'none'; connect-src 'self'; style-src {_allowed('style')}; script-src {_allowed('script')}; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
