"""Who is calling: short-lived Ed25519 tokens (RFC 7519, RFC 8037), their keys, and the caller of the running RPC."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from counterfoil_chassis.clock import Clock
from counterfoil_chassis.errors import PermissionDeniedError, StartError, UnauthenticatedError

AUDIENCE = "counterfoil"
PRINCIPAL_ISSUER = "gateway"
MAX_LIFETIME = timedelta(minutes=5)
_LEEWAY_SECONDS = 5
_RENEW_BEFORE = timedelta(minutes=1)
_CACHED_TOKENS = 10_000


class MissingTokenError(UnauthenticatedError):
    """The call carries no bearer token."""

    reason = "TOKEN_MISSING"


class InvalidTokenError(UnauthenticatedError):
    """The token is not one of ours: wrong signature, issuer, audience or claims."""

    reason = "TOKEN_INVALID"


class ExpiredTokenError(InvalidTokenError):
    """The token was valid once; get a fresh one."""

    reason = "TOKEN_EXPIRED"


class ScopeMissingError(PermissionDeniedError):
    """The caller's credential lacks the scope this needs."""

    reason = "SCOPE_MISSING"


@dataclass(frozen=True)
class Caller:
    """Who calls: a principal in its workspace, or, when `service` is set, a service acting for itself in none.

    `roles` are the principal's roles, which policies can name; what it may do is in `scopes`.
    """

    workspace: str
    principal: str
    scopes: frozenset[str]
    service: str
    roles: frozenset[str] = frozenset()


class TokenSigner:
    """Mints tokens in one service's name."""

    def __init__(self, issuer: str, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._issuer = issuer
        self._key = key
        self._clock = clock
        self._service_token = ""
        self._renew_at = clock.now()

    @property
    def issuer(self) -> str:
        """Return the service's name, the `iss` of its tokens."""
        return self._issuer

    def mint(
        self,
        *,
        workspace: str,
        principal: str,
        scopes: Iterable[str],
        roles: Iterable[str] = (),
        lifetime: timedelta = MAX_LIFETIME,
    ) -> str:
        """Return a principal's token; verifiers accept it from the gateway alone and for at most five minutes."""
        claims: dict[str, Any] = {"sub": principal, "workspace": workspace, "scope": " ".join(sorted(scopes))}
        if named := sorted(roles):
            claims["roles"] = named
        return self._sign(claims, lifetime)

    def mint_service(self) -> str:
        """Return the service's own token, the same one until a minute before it expires."""
        now = self._clock.now()
        if not self._service_token or now >= self._renew_at:
            self._service_token = self._sign({"sub": self._issuer}, MAX_LIFETIME)
            self._renew_at = now + MAX_LIFETIME - _RENEW_BEFORE
        return self._service_token

    def _sign(self, claims: dict[str, Any], lifetime: timedelta) -> str:
        now = int(self._clock.now().timestamp())
        life = int(lifetime.total_seconds())
        fixed = {"iss": self._issuer, "aud": AUDIENCE, "iat": now, "exp": now + life}
        return jwt.encode({**claims, **fixed}, self._key, algorithm="EdDSA")


class TokenVerifier:
    """Checks tokens against the trusted public keys; each is checked once, then remembered by its hash."""

    def __init__(self, trusted: Mapping[str, Ed25519PublicKey], clock: Clock) -> None:
        self._trusted = dict(trusted)
        self._clock = clock
        self._known: dict[bytes, tuple[Caller, int]] = {}

    def verify(self, token: str) -> Caller:
        """Return the caller a token speaks for; raise InvalidTokenError or ExpiredTokenError."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        now = self._clock.now().timestamp()
        known = self._known.get(digest)
        if known is None:
            known = self._check(token, now)
            if len(self._known) >= _CACHED_TOKENS:
                del self._known[next(iter(self._known))]
            self._known[digest] = known
        caller, expires = known
        if now >= expires + _LEEWAY_SECONDS:
            self._known.pop(digest, None)
            raise ExpiredTokenError("the token has expired; get a fresh one")
        return caller

    def _check(self, token: str, now: float) -> tuple[Caller, int]:
        claims = self._claims(token)
        issued, expires = claims["iat"], claims["exp"]
        if type(issued) is not int or type(expires) is not int:
            raise InvalidTokenError("the token's times are not whole seconds")
        if issued > now + _LEEWAY_SECONDS:
            raise InvalidTokenError("the token is dated in the future; check the clocks")
        if expires - issued > MAX_LIFETIME.total_seconds():
            raise InvalidTokenError("the token lives longer than five minutes")
        return _caller(claims), expires

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            unverified = jwt.decode(token, options={"verify_signature": False})
            issuer = unverified.get("iss")
            key = self._trusted.get(issuer) if isinstance(issuer, str) else None
            if key is None:
                raise InvalidTokenError(
                    "the token's issuer is not trusted here; add its public key to the trusted keys"
                )
            # exp and iat are compared by hand, with the clock that was passed in.
            return jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=issuer,
                options={
                    "require": ["exp", "iat", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidTokenError("the token is not valid") from error


def _caller(claims: Mapping[str, Any]) -> Caller:
    issuer, subject = claims["iss"], claims["sub"]
    workspace, scope, roles = claims.get("workspace"), claims.get("scope"), claims.get("roles")
    if workspace is None and scope is None and roles is None and subject == issuer:
        return Caller(workspace="", principal=f"service:{issuer}", scopes=frozenset(), service=issuer)
    if issuer != PRINCIPAL_ISSUER:
        raise InvalidTokenError("only the gateway speaks for principals")
    texts = isinstance(workspace, str) and isinstance(scope, str) and isinstance(subject, str)
    if not texts or not workspace or not subject:
        raise InvalidTokenError("the token names no workspace or no principal")
    return Caller(
        workspace=str(workspace),
        principal=subject,
        scopes=frozenset(str(scope).split()),
        service="",
        roles=_roles(roles),
    )


def _roles(claim: object) -> frozenset[str]:
    if claim is None:
        return frozenset()
    if not isinstance(claim, list) or not claim or not all(isinstance(role, str) and role for role in claim):
        raise InvalidTokenError("the token's roles are no list of names")
    return frozenset(claim)


def generate_private_key(path: Path) -> Ed25519PrivateKey:
    """Write a fresh private key (PKCS 8 PEM, mode 0600); raise FileExistsError rather than replace one."""
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a PKCS 8 PEM private key; raise StartError with what to do when it cannot be read."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise StartError(f"the private key {path} does not exist; create it, or set the private key file") from None
    except (OSError, ValueError, TypeError) as error:
        raise StartError(f"the private key {path} cannot be read: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise StartError(f"the private key {path} is not an Ed25519 key")
    return key


def load_trusted_keys(directory: Path) -> dict[str, Ed25519PublicKey]:
    """Read the `<name>.pem` public keys of a folder by name; raise StartError when one or the folder is unreadable."""
    if not directory.is_dir():
        raise StartError(f"the folder of trusted keys {directory} does not exist; set the trusted keys folder")
    keys: dict[str, Ed25519PublicKey] = {}
    for path in sorted(directory.glob("*.pem")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StartError(f"the trusted key {path} cannot be read: {error}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise StartError(f"the trusted key {path} is not an Ed25519 key")
        keys[path.stem] = key
    return keys


def write_key_pair(private: Path, trusted_dir: Path, name: str) -> None:
    """Write a service's private key and its public half `<trusted_dir>/<name>.pem`, keeping an existing private key."""
    key = load_private_key(private) if private.exists() else generate_private_key(private)
    trusted_dir.mkdir(parents=True, exist_ok=True)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    target = trusted_dir / f"{name}.pem"
    if not target.exists() or target.read_bytes() != public:
        target.write_bytes(public)


def derive_secret(key: Ed25519PrivateKey) -> bytes:
    """Return 32 bytes that only the key's owner can know, the same for the same key (RFC 5869)."""
    raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"counterfoil service secret").derive(raw)


_caller_of_call: ContextVar[Caller] = ContextVar("caller")
_token_of_call: ContextVar[str] = ContextVar("token")


def enter_call(caller: Caller, token: str) -> None:
    """Make these the caller and token of the running task; the server interceptor calls it for each RPC."""
    _caller_of_call.set(caller)
    _token_of_call.set(token)


def current_caller() -> Caller:
    """Return the caller of the running RPC; raise LookupError outside one."""
    return _caller_of_call.get()


def current_token() -> str:
    """Return the raw token of the running RPC, to forward; raise LookupError outside one."""
    return _token_of_call.get()


def require_scope(caller: Caller, scope: str) -> None:
    """Raise ScopeMissingError, with the policy's id `scope:<scope>`, unless the caller has the scope."""
    if scope not in caller.scopes:
        raise ScopeMissingError(
            f"this needs the scope {scope}; ask an administrator for a key that has it",
            metadata={"policy_id": f"scope:{scope}"},
        )
