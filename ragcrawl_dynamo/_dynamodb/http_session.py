"""Makes HTTP sessions that verify the certificate of the host that they connect to.

The session of aiobotocore lacks two checks that botocore leaves to urllib3, which aiohttp replaces: it takes
the certificate of a trusted authority for any other host, and through a proxy it takes every certificate.
"""

from __future__ import annotations

import ssl
from typing import Any

from aiobotocore.httpsession import AIOHTTPSession


class VerifyingSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """A session of aiobotocore that compares the host with the certificate, through a proxy too.

    It overrides two methods that are not public: tests/integration/dynamodb/test_tls.py tells if a version of
    aiobotocore does not call them any more.
    """

    def _get_ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._get_ssl_context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
        return context

    def _setup_proxy_ssl_context(self, proxy_url: str) -> Any:
        # None if there is no certificate of the proxy's own; a connector without a context verifies nothing.
        return super()._setup_proxy_ssl_context(proxy_url) or self._get_ssl_context()
