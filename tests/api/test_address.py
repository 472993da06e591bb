"""The base URL as people write it."""

from __future__ import annotations

import pytest

from airflow_provider_completion.api.address import normalised_base_url
from airflow_provider_completion.api.errors import ConfigurationError

GOOD = {
    "https://api.example.com/v1": "https://api.example.com/v1",
    "https://api.example.com": "https://api.example.com/v1",
    "https://api.example.com/": "https://api.example.com/v1",
    "https://api.example.com/v1/": "https://api.example.com/v1",
    "https://api.example.com//v1//": "https://api.example.com/v1",
    "https://api.example.com/v1/completion-messages": "https://api.example.com/v1",
    "https://api.example.com/dify": "https://api.example.com/dify/v1",
    "https://api.example.com/dify/v1/info": "https://api.example.com/dify/v1",
    "https://api.example.com/dify/V1/": "https://api.example.com/dify/v1",
    "https://api.example.com/v10": "https://api.example.com/v10/v1",
    "  https://api.example.com/v1\n": "https://api.example.com/v1",
    "HTTPS://API.Example.COM/v1": "https://api.example.com/v1",
    "https://api.example.com:443/v1": "https://api.example.com:443/v1",
    "http://api.example.com:5001/v1": "http://api.example.com:5001/v1",
    "api.example.com": "https://api.example.com/v1",
    "api.example.com:8443/v1": "https://api.example.com:8443/v1",
    "10.0.0.7": "https://10.0.0.7/v1",
    "localhost": "http://localhost/v1",
    "localhost:5001/v1": "http://localhost:5001/v1",
    "127.0.0.1:5001": "http://127.0.0.1:5001/v1",
    "[::1]:5001": "http://[::1]:5001/v1",
    "http://[2001:db8::7]/v1": "http://[2001:db8::7]/v1",
    "https://localhost:5001": "https://localhost:5001/v1",
    "http://api": "http://api/v1",
    "https://bücher.example/v1": "https://bücher.example/v1",
    "https://api.example.com/v1?": "https://api.example.com/v1",
}

BAD = [
    "", "   ", "https://", "https:///v1", "http://:5001/v1", "/v1", "ftp://api.example.com", "file:///etc/passwd",
    "https://user:hunter2@api.example.com/v1", "https://user@api.example.com/v1", "user@api.example.com",
    "https://api.example.com/v1?key=x", "https://api.example.com/v1#top", "https://api.example.com/v 1",
    "https://api.\nexample.com", "https://api\x00.example.com", "https://api.example.com/\x7f",
    "https://api.example.com:0/v1", "https://api.example.com:99999/v1", "https://api.example.com:port/v1",
    "http://[::1", "http://[nonsense]/v1", "http://a..b", "http://" + "a" * 70,
    # A slip of the keyboard must not become the host "https".
    "https:/api.example.com/v1", "https://https://api.example.com/v1", "https:api.example.com",
]  # fmt: skip


@pytest.mark.parametrize(("address", "normalised"), GOOD.items())
def test_good(address, normalised):
    assert normalised_base_url(address) == normalised
    assert normalised_base_url(normalised) == normalised


@pytest.mark.parametrize("address", BAD)
def test_bad(address):
    with pytest.raises(ConfigurationError) as caught:
        normalised_base_url(address)
    assert caught.value.hint
    # Whatever was pasted into the field, a key perhaps, is not repeated.
    assert "hunter2" not in str(caught.value)
    assert "key=x" not in str(caught.value)
