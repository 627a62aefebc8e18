"""How a RADIUS request proves who it is for: PAP, CHAP and SIP digest.

PAP and CHAP: RFC 2865 sections 5.2, 5.3. Digest: RFC 5090, and the older form of
draft-sterman-aaa-sip-00 that Kamailio and OpenSIPS send (attributes 206 and 207). Digest
arithmetic: RFC 2617 section 3.2.2, with SHA-256 of RFC 8760.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import msgspec

from tollkeeper.wire.radius.attributes import Attributes, Type, plain
from tollkeeper.wire.radius.packet import MalformedRadius

PASSWORD_MAX = 128
STERMAN_RESPONSE = 206
STERMAN_ATTRIBUTES = 207

_RFC5090 = {
    103: "response",
    104: "realm",
    105: "nonce",
    108: "method",
    109: "uri",
    110: "qop",
    111: "algorithm",
    112: "body_hash",
    113: "cnonce",
    114: "nonce_count",
    115: "username",
    116: "opaque",
}
_STERMAN = {
    1: "realm",
    2: "nonce",
    3: "method",
    4: "uri",
    5: "qop",
    6: "algorithm",
    7: "body_hash",
    8: "cnonce",
    9: "nonce_count",
    10: "username",
}


def reveal_password(hidden: bytes, authenticator: bytes, secret: bytes) -> bytes:
    """The password in a User-Password.

    Raises:
        MalformedRadius: not 16 to 128 octets in blocks of 16.
    """
    if not 16 <= len(hidden) <= PASSWORD_MAX or len(hidden) % 16:
        raise MalformedRadius(f"a User-Password has {len(hidden)} octets")
    parts, before = [], authenticator
    for at in range(0, len(hidden), 16):
        block = hidden[at : at + 16]
        parts.append(_xor(block, _md5(secret + before)))
        before = block
    return b"".join(parts).rstrip(b"\x00")


def hide_password(password: bytes, authenticator: bytes, secret: bytes) -> bytes:
    """A User-Password for this request.

    Raises:
        ValueError: longer than 128 octets.
    """
    if len(password) > PASSWORD_MAX:
        raise ValueError(f"a password of {len(password)} octets is longer than {PASSWORD_MAX}")
    padded = password.ljust(max(16, -(-len(password) // 16) * 16), b"\x00")
    parts, before = [], authenticator
    for at in range(0, len(padded), 16):
        before = _xor(padded[at : at + 16], _md5(secret + before))
        parts.append(before)
    return b"".join(parts)


def chap_matches(answer: bytes, challenge: bytes, password: bytes) -> bool:
    """Tell whether a CHAP-Password (identifier and digest) is the password's."""
    if len(answer) != 17:
        return False
    return hmac.compare_digest(_md5(answer[:1] + password + challenge), answer[1:])


class Digest(msgspec.Struct, frozen=True, gc=False):
    """The parts of a SIP digest as the switch took them from the request."""

    username: str = ""
    realm: str = ""
    nonce: str = ""
    method: str = ""
    uri: str = ""
    response: str = ""
    qop: str = ""
    algorithm: str = ""
    body_hash: str = ""
    cnonce: str = ""
    nonce_count: str = ""
    opaque: str = ""


def read_digest(attributes: Attributes) -> Digest | None:
    """The digest of an Access-Request in either form; none if it has none.

    Only for an Access-Request: in accounting, Kamailio uses the same codes for other things.
    """
    found: dict[str, str] = {}
    older = attributes.raw(STERMAN_RESPONSE)
    if older is not None:
        found["response"] = _unquoted(older)
        # Several, or one with several parts: the parts are the same (FreeRADIUS "concat").
        for value in attributes.every(STERMAN_ATTRIBUTES):
            _read_parts(value, found)
    else:
        if attributes.raw(103) is None:
            return None
        for kind, name in _RFC5090.items():
            part = attributes.raw(kind)
            if part is not None:
                found[name] = _unquoted(part)
    if not found.get("username"):
        found["username"] = attributes.text(Type.USER_NAME)
    return Digest(**found)


def _read_parts(value: bytes, found: dict[str, str]) -> None:
    at = 0
    while at + 2 <= len(value):
        kind, size = value[at], value[at + 1]
        if size < 2 or at + size > len(value):
            return
        name = _STERMAN.get(kind)
        if name is not None:
            found.setdefault(name, _unquoted(value[at + 2 : at + size]))
        at += size


def _unquoted(value: bytes) -> str:
    return plain(value).strip().strip('"')


def secret_hash(username: str, realm: str, password: str, algorithm: str = "MD5") -> str:
    """H(A1) of a password: what may be kept in its place."""
    return _hash_of(algorithm)(f"{username}:{realm}:{password}".encode()).lower()


def password_matches(username: str, realm: str, password: bytes, ha1: str) -> bool:
    """Tell whether a password is the one whose H(A1) (of MD5) is kept."""
    found = _md5_hex(f"{username}:{realm}:".encode() + password)
    return hmac.compare_digest(found, ha1)


def digest_matches(digest: Digest, ha1: str) -> bool:
    """Tell whether the response is that of somebody who knows the password behind ``ha1``.

    ``ha1`` is of the algorithm's own hash. An unknown algorithm or qop matches nothing.
    """
    algorithm = digest.algorithm.upper() or "MD5"
    qop = digest.qop.lower()
    if algorithm.removesuffix("-SESS") not in _HASHES or qop not in {"", "auth", "auth-int"}:
        return False
    if not digest.nonce or not digest.response or (qop and not digest.cnonce):
        return False
    h = _hash_of(algorithm)
    if algorithm.endswith("-SESS"):
        ha1 = h(f"{ha1}:{digest.nonce}:{digest.cnonce}".encode())
    a2 = f"{digest.method}:{digest.uri}" + (f":{digest.body_hash}" if qop == "auth-int" else "")
    middle = f"{digest.nonce_count}:{digest.cnonce}:{digest.qop}:" if qop else ""
    expected = h(f"{ha1}:{digest.nonce}:{middle}{h(a2.encode())}".encode())
    return hmac.compare_digest(expected.encode(), digest.response.lower().encode())


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(16, "big")


def _md5_hex(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_HASHES: dict[str, Callable[[bytes], str]] = {"MD5": _md5_hex, "SHA-256": _sha256_hex}


def _hash_of(algorithm: str) -> Callable[[bytes], str]:
    """The hash of an algorithm.

    Raises:
        ValueError: it is none that is known.
    """
    found = _HASHES.get((algorithm.upper() or "MD5").removesuffix("-SESS"))
    if found is None:
        raise ValueError(f'the digest algorithm "{algorithm}" is not known')
    return found
