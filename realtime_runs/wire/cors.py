"""Cross-origin requests (wire-protocol 1.8): pages of any origin may call, with a bearer token, never with cookies."""

from typing import Final

_EXPOSED: Final = ", ".join(
    [
        "electric-offset",
        "electric-handle",
        "electric-cursor",
        "electric-schema",
        "electric-up-to-date",
        "x-stream-version",
        "x-trigger-jwt",
        "x-trigger-jwt-claims",
        "retry-after",
    ]
)
_MOST_HEADERS: Final = 2000  # characters of the list of headers that a page asks for

ANSWER_HEADERS: Final = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": _EXPOSED}


def preflight_headers(requested_headers: str) -> dict[str, str]:
    """Of the answer, 204, to an OPTIONS request. A `*` for the headers would not cover Authorization."""
    # Names and commas only: what is echoed into a header must not be able to hold anything else.
    is_list = all(part.strip().replace("-", "").isalnum() for part in requested_headers.split(","))
    allowed = requested_headers if requested_headers.isascii() and is_list else "authorization, content-type"
    return {
        **ANSWER_HEADERS,
        "Access-Control-Allow-Methods": "GET,HEAD,PUT,PATCH,POST,DELETE",
        "Access-Control-Allow-Headers": allowed[:_MOST_HEADERS],
        "Access-Control-Max-Age": "300",
        "Vary": "Access-Control-Request-Headers",
    }
