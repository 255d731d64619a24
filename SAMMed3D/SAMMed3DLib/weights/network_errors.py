"""What went wrong in the network, in words that name the cure, and whether it may pass."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request

BY_HAND = "Or fetch the file with a web browser, and choose it as a checkpoint file."
#: HTTP statuses that often pass by themselves.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


def may_pass(error: BaseException, begun: bool) -> bool:
    """Whether trying again soon makes sense: dropped lines, stalls, busy servers; not a missing file or a refusal.

    Args:
        error: what urllib or http.client raised.
        begun: whether something of the file has come before; then an unknown host or a refused connection is a
            disturbance of the network, else a fact to be told at once.
    """
    if isinstance(error, urllib.error.HTTPError):
        return error.code in PASSING
    reason = _reason(error)
    if isinstance(reason, ssl.SSLCertVerificationError) or "Tunnel connection failed" in str(reason):
        return False
    if isinstance(reason, (socket.gaierror, ConnectionRefusedError, ssl.SSLError)):
        return begun
    return isinstance(reason, (OSError, http.client.HTTPException))


def explain(error: BaseException, url: str) -> str:
    """A sentence on what went wrong and one on what to do, for users.

    Args:
        error: what urllib or http.client raised.
        url: what was asked for.
    """
    host = urllib.parse.urlsplit(url).hostname or url
    if isinstance(error, urllib.error.HTTPError):
        return f"{_explain_status(error, host)} {BY_HAND}"
    reason = _reason(error)
    proxy = _proxy(url)
    through = f" through the proxy {proxy}" if proxy else ""
    if isinstance(reason, ssl.SSLCertVerificationError):
        what = (f"The identity of {host} could not be verified ({reason.verify_message}). Check the date of this "
                "computer; in a network that inspects traffic, ask its administrator to install the network's "
                "certificate (SSL_CERT_FILE).")
    elif isinstance(reason, ssl.SSLError):
        cause = getattr(reason, "reason", None) or reason
        what = (f"The encrypted connection to {host} failed ({cause}). A proxy or firewall may be in the way: try "
                "another network.")
    elif "Tunnel connection failed" in str(reason):
        what = (f"The proxy {proxy or 'of this network'} refused the connection to {host} ({reason}). Check its "
                "address and password in HTTPS_PROXY, or ask the administrator to allow it.")
    elif isinstance(reason, socket.gaierror):
        name = proxy or host
        what = (f"{name} was not found. Is this computer online? If it is, a proxy may be needed: set HTTPS_PROXY "
                "and start again.") if not proxy else f"The proxy {name} was not found: check HTTPS_PROXY."
    elif isinstance(reason, TimeoutError) or getattr(reason, "errno", None) == errno.ETIMEDOUT:
        what = f"{host} does not answer{through}: the transfer stalled. Try again; it goes on where it stopped."
    elif isinstance(reason, ConnectionRefusedError):
        what = f"{proxy or host} refused the connection. " + (
            "Check the proxy in HTTPS_PROXY." if proxy else "Try again later.")
    elif isinstance(reason, (ConnectionError, http.client.HTTPException)):
        what = (f"The connection to {host}{through} was lost again and again. Try again; it goes on where it stopped.")
    elif getattr(reason, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
        what = f"{host} cannot be reached: this computer seems to be offline."
    else:
        what = f"{host} could not be read{through} ({reason})."
    return f"{what} {BY_HAND}"


def _explain_status(error: urllib.error.HTTPError, host: str) -> str:
    code = error.code
    if code in (404, 410):
        return f"{host} no longer has the file (HTTP {code}). A newer version of SAMMed3D may know where it is."
    if code in (401, 403, 451):
        return f"{host} refuses to hand out the file (HTTP {code})."
    if code == 407:
        return "The proxy of this network asks for a password (HTTP 407). Put it into HTTPS_PROXY, and start again."
    if code in PASSING:
        return f"{host} is too busy now (HTTP {code}). Try again later."
    return f"{host} answered with an error (HTTP {code} {error.reason})."


def _reason(error: BaseException) -> BaseException:
    """What lies beneath urllib's wrapping."""
    inner = getattr(error, "reason", None)
    return inner if isinstance(error, urllib.error.URLError) and isinstance(inner, BaseException) else error


def _proxy(url: str) -> str:
    """The host of the proxy that urllib takes for this address, without user name and password; "" for none."""
    parts = urllib.parse.urlsplit(url)
    address = urllib.request.getproxies().get(parts.scheme, "")
    if not address or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    proxy = urllib.parse.urlsplit(address if "//" in address else f"//{address}")
    return f"{proxy.hostname}:{proxy.port}" if proxy.port else str(proxy.hostname)
