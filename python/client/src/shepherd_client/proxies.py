"""What the environment says of proxies. A shepherd on this machine is asked without one: a proxy cannot reach it."""

from ipaddress import ip_address
from typing import Any, Dict, Optional
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def direct(url: str) -> Dict[str, Any]:
    """The mounts of an httpx client that lead to a loopback address past every proxy."""
    host = urlsplit(url).hostname or ""
    return {f"all://{_bracketed(host)}": None} if _is_loopback(host) else {}


def of(url: str) -> Optional[str]:
    """The proxy that the environment names for this URL, without user and password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or proxy_bypass(host):
        return None
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy:
        return None
    shown = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return f"{shown.scheme}://{shown.netloc.rpartition('@')[2]}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        name = host.rstrip(".").lower()
        return name == "localhost" or name.endswith(".localhost")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
