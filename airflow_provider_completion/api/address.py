"""The base URL as people write it, brought into one form."""

from __future__ import annotations

import ipaddress
from itertools import takewhile
from urllib.parse import SplitResult, urlsplit

from airflow_provider_completion.api.errors import ConfigurationError

_HINT = "It looks like https://api.example.com/v1."


def normalised_base_url(address: str) -> str:
    """Return the base URL with scheme and ``/v1``, without a slash at the end.

    ``/v1`` and everything after it may be present or not; without a scheme it is https, or http on this machine.

    :raises ConfigurationError: it is empty, no http(s) address, or carries what does not belong into it
    """
    address = address.strip()
    if not address:
        raise ConfigurationError("The connection has no Base URL.", hint=_HINT)
    if any(character.isspace() or not character.isprintable() for character in address):
        raise ConfigurationError("The Base URL contains blanks or control characters.", hint=_HINT)
    scheme_slip = address.lower().startswith(("http:", "https:")) and "://" not in address
    if scheme_slip or address.count("://") > 1:
        raise ConfigurationError("The Base URL does not begin with one scheme and two slashes.", hint=_HINT)
    url = _split(address if "://" in address else f"//{address}")
    if url.username is not None or url.password is not None:
        raise ConfigurationError(
            "The Base URL contains a user name or password.", hint="The API key has a field of its own."
        )
    if url.query or url.fragment:
        raise ConfigurationError("The Base URL contains a query or fragment.", hint=_HINT)
    scheme = url.scheme or ("http" if _is_loopback(url.hostname or "") else "https")
    if scheme not in ("http", "https"):
        raise ConfigurationError(f"The Base URL has the scheme {scheme!r}, not http or https.", hint=_HINT)
    if not url.hostname:
        raise ConfigurationError("The Base URL names no host.", hint=_HINT)
    if not all(0 < len(label) < 64 for label in url.hostname.rstrip(".").split(".")):
        raise ConfigurationError("The Base URL has a host name that cannot be.", hint=_HINT)
    segments = takewhile(lambda segment: segment.lower() != "v1", filter(None, url.path.split("/")))
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    port = f":{url.port}" if url.port is not None else ""
    return "/".join([f"{scheme}://{host}{port}", *segments, "v1"])


def _split(address: str) -> SplitResult:
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError:  # its text would quote the address, and whatever was pasted into it
        raise ConfigurationError("The Base URL is no address that can be read.", hint=_HINT) from None
    if port == 0:
        raise ConfigurationError("The Base URL has port 0.", hint=_HINT)
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
