"""TLS as a broker's URL asks for it: whom we trust, and how we show who we are.

The context is made here and not by the client library, which reports a missing file without its name, and whose
OpenSSL would ask the terminal for the passphrase of an encrypted key. It is made anew for each connection, so a
certificate that was renewed on disk is used from the next one on.
"""

import ssl
from base64 import b64decode

from hybridpool._brokers.rabbitmq.errors import Unusable
from hybridpool._brokers.url import BrokerUrl


def context(url: BrokerUrl) -> ssl.SSLContext:
    """Read what the URL's query names: `cafile`, `capath`, `cadata`, `certfile`, `keyfile`, `no_verify_ssl`.

    It reads files: call it in a thread.

    :raises Unusable: if one of them cannot be used; the text names it.
    """
    given = dict(url.query)
    cafile, capath, cadata = given.get("cafile"), given.get("capath"), given.get("cadata")
    try:
        made = ssl.create_default_context(cafile=cafile, capath=capath, cadata=b64decode(cadata) if cadata else None)
    except (OSError, ValueError) as error:
        named = cafile or capath or "cadata"
        raise Unusable(f"{named} cannot be used as CA certificates: {_words(error)}") from None
    certfile, keyfile = given.get("certfile"), given.get("keyfile")
    if certfile or keyfile:
        try:
            made.load_cert_chain(certfile or "", keyfile, password="")
        except (OSError, ValueError) as error:
            told = f"{certfile} with the key {keyfile}" if keyfile else f"{certfile}"
            raise Unusable(f"{told} cannot be used as client certificate: {_words(error)}") from None
    if given.get("no_verify_ssl", "0") != "0":
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is not in PEM format").replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or "it cannot be read"
