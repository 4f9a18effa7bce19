"""Sign-in by an OpenID Connect provider: authorization code with PKCE and nonce (OpenID Connect Core 3.1, RFC 7636)."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from config import roles
from service.errors import NotDone
from service.http import is_loopback
from service.logs import logger
from service.signin import SignedIn, SignInRefused, begun
from store import sessions, users
from store.auditwhat import Who, alert, authentication
from store.models_users import OidcLogin

if TYPE_CHECKING:
    from config.settings import Settings
    from jobs.context import Context

_WITHIN = timedelta(minutes=10)
"""How long somebody may be at the provider."""
_ON_THEIR_WAY = 10_000
"""More than so many at once nobody needs; those who went first make room, so that nobody can bar the way for others."""
_METADATA_SECONDS = 3600.0
_TIMEOUT = (5.0, 10.0)
_MOST_BYTES = 1 << 20
_LEEWAY = 60
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that only the provider can make; none, and those with our own secret, are not taken."""
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class ProviderFailed(NotDone):
    """The provider does not answer, or not as the standard says."""

    http_status = 502

    def __init__(self, text: str) -> None:
        super().__init__(f"the OpenID provider: {text}", "OIDC_PROVIDER")


def wrong_settings(settings: Settings) -> list[str]:
    """What of the section cannot be, one line each."""
    oidc = settings.oidc
    if not oidc.issuer:
        return []
    found = []
    if not _reachable_safely(oidc.issuer):
        found.append("oidc.issuer: the provider must have an https address (http on loopback only)")
    if not oidc.client_id:
        found.append("oidc.client_id: our name at the provider is needed")
    for value, role in [*oidc.roles.items(), ("", oidc.default_role)]:
        if role and role not in roles.roles():
            where = f"oidc.roles, {value!r}" if value else "oidc.default_role"
            found.append(f"{where}: {role!r} is no role; there are {', '.join(roles.roles())}")
    if not oidc.roles and not oidc.default_role:
        found.append("oidc.roles, oidc.default_role: with neither nobody could sign in")
    if "openid" not in oidc.scopes:
        found.append("oidc.scopes: openid is not among them")
    if oidc.ca and not Path(settings.in_data(oidc.ca)).is_file():
        found.append(f"oidc.ca: there is no file {settings.in_data(oidc.ca)}")
    if missing := [name for name in ("authlib", "joserfc", "requests") if find_spec(name) is None]:
        found.append(f"oidc.issuer: {', '.join(missing)} not installed: pip install 'burnish[oidc]'")
    return found


class Provider:
    """The provider of the settings."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings.oidc
        self._ca = context.settings.in_data(self._settings.ca)
        self._metadata: Mapping[str, Any] | None = None
        self._metadata_until = 0.0

    def begin(self, redirect_uri: str, then: str) -> tuple[str, str]:
        """Where to send a browser, and the cookie that it must come back with. Raises ProviderFailed."""
        metadata = self._discovered()
        state, browser, nonce = (secrets.token_urlsafe(32) for _ in range(3))
        verifier = secrets.token_urlsafe(64)
        with self._context.db.begin() as session:
            sessions.forget_sent_off(session, within=_WITHIN, most=_ON_THEIR_WAY - 1)
            sessions.send_off(session, state=state, browser=browser, nonce=nonce, verifier=verifier, then=then)
        with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        return str(url), browser

    def finish(
        self, *, state: str, code: str, browser: str, redirect_uri: str, address: str, old: str = ""
    ) -> tuple[SignedIn, str]:
        """Who has come back, with a session, and the page that was wanted.

        Raises UserError for a state that is not this browser's, ProviderFailed, SignInRefused for whom it is not for.
        """
        with self._context.db.begin() as session:
            sent = sessions.come_back(session, state=state, browser=browser, within=_WITHIN)
        claims = self._claims(code, sent, redirect_uri)
        try:
            return self._signed_in(claims, address, old), sent.next
        except (SignInRefused, users.UserError) as error:
            logger("service.users").warning("a sign-in was refused", reason=str(error), address=address)
            with self._context.db.begin() as session:
                told = authentication("login", Who("(OpenID)", address), problem=str(error))
                self._context.audit.record(session, told)
            raise

    def _signed_in(self, claims: Mapping[str, Any], address: str, old: str) -> SignedIn:
        issuer, subject = self._settings.issuer, str(claims["sub"])
        role = self._role(claims)
        name = _claim(claims, self._settings.name_claim)
        changed = ""
        with self._context.db.begin() as session:
            user = users.by_identity(session, issuer, subject)
            if user is None:
                if not isinstance(name, str) or not users.possible(users.folded(name)):
                    raise SignInRefused(
                        f"the provider's claim {self._settings.name_claim} gives no name that a user can have here",
                        "OIDC_NAME",
                    )
                if not role:
                    raise SignInRefused(
                        "the provider gives you no role for Burnish; ask its administrator", "OIDC_ROLE"
                    )
                user = users.add(session, name, role, by="OpenID provider", identity=(issuer, subject))
                changed = f"a user was made, role: {role}"
            elif user.role != role:
                changed = f"a role was changed, role: {role}"
            if user.disabled_at is not None or not role:
                raise SignInRefused("you may not sign in to Burnish; ask its administrator", "OIDC_ROLE")
            users.set_role(session, user, role, forced=True)
            if changed:
                told = alert("roles", Who("(OpenID)", address), f"{changed}, by the OpenID provider", about=user.name)
                self._context.audit.record(session, told)
            return begun(self._context, session, user, how="oidc", address=address, old=old)

    def _role(self, claims: Mapping[str, Any]) -> str:
        """The highest role of those that the claim's values have; "" where there is none."""
        value = _claim(claims, self._settings.role_claim)
        values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        given = [self._settings.roles[one] for one in values if isinstance(one, str) and one in self._settings.roles]
        order = roles.roles()
        return max(given, key=order.index) if given else self._settings.default_role

    def _claims(self, code: str, sent: OidcLogin, redirect_uri: str) -> Mapping[str, Any]:
        """What the provider says of whoever has this code: the ID token's claims, checked (Core 3.1.3.7)."""
        from authlib.common.errors import AuthlibBaseError
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet
        from requests import RequestException

        metadata = self._discovered()
        offered = metadata.get("id_token_signing_alg_values_supported") or _ALGORITHMS
        algorithms = [one for one in _ALGORITHMS if one in offered]
        with self._client(redirect_uri) as client:
            try:
                answer = client.fetch_token(
                    metadata["token_endpoint"],
                    code=code,
                    code_verifier=sent.verifier,
                    timeout=_TIMEOUT,
                    allow_redirects=False,
                )
                keys = KeySet.import_key_set({"keys": self._document(client, metadata["jwks_uri"])["keys"]})
                token = jwt.decode(str(answer["id_token"]), keys, algorithms=algorithms)
                claims = CodeIDToken(
                    token.claims,
                    token.header,
                    options={
                        "iss": {"essential": True, "value": self._settings.issuer},
                        "aud": {"essential": True, "value": self._settings.client_id},
                    },
                    params={
                        "nonce": sent.nonce,
                        "client_id": self._settings.client_id,
                        "access_token": answer.get("access_token"),
                    },
                )
                claims.validate(leeway=_LEEWAY)  # type: ignore[no-untyped-call]
                return self._completed(client, dict(claims), answer)
            except (AuthlibBaseError, JoseError, RequestException, KeyError, ValueError, TypeError) as error:
                # Without what the provider said: it may hold the code or a token.
                raise ProviderFailed(f"what it says of you cannot be relied on ({type(error).__name__})") from error

    def _completed(self, client: Any, claims: dict[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
        """With what the user info endpoint adds, where the ID token lacks a claim of the settings."""
        wanted = (self._settings.name_claim, self._settings.role_claim)
        endpoint = self._discovered().get("userinfo_endpoint")
        if not endpoint or all(_claim(claims, one) is not None for one in wanted) or not answer.get("access_token"):
            return claims
        info = self._document(client, endpoint, with_token=True)
        if info.get("sub") != claims["sub"]:  # Core 5.3.2
            raise ValueError("user info of somebody else")
        return info | claims

    def _discovered(self) -> Mapping[str, Any]:
        """The provider's description (OpenID Connect Discovery 4), kept for an hour."""
        from requests import RequestException

        if self._metadata is not None and time.monotonic() < self._metadata_until:
            return self._metadata
        url = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            with self._client("") as client:
                found = self._document(client, url)
        except (RequestException, ValueError) as error:
            raise ProviderFailed(f"it cannot be asked ({type(error).__name__})") from error
        if found.get("issuer") != self._settings.issuer:
            raise ProviderFailed("it calls itself otherwise than oidc.issuer does")
        for name in _ENDPOINTS:
            if not isinstance(found.get(name), str) or not _reachable_safely(found[name]):
                raise ProviderFailed(f"its description has no {name} that may be used")
        self._metadata, self._metadata_until = found, time.monotonic() + _METADATA_SECONDS
        return found

    def _client(self, redirect_uri: str) -> Any:
        from authlib.integrations.requests_client import OAuth2Session

        settings = self._settings
        client = OAuth2Session(  # type: ignore[no-untyped-call]
            settings.client_id,
            settings.client_secret or None,
            token_endpoint_auth_method="client_secret_basic" if settings.client_secret else "none",
            scope=" ".join(settings.scopes),
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
        )
        client.verify = self._ca or True
        return client

    def _document(self, client: Any, url: str, *, with_token: bool = False) -> dict[str, Any]:
        """A JSON document of at most a megabyte. ValueError, RequestException."""
        withhold = not with_token
        with client.get(url, timeout=_TIMEOUT, allow_redirects=False, stream=True, withhold_token=withhold) as response:
            if response.status_code != 200:
                raise ValueError(f"HTTP status {response.status_code}")
            content = response.raw.read(_MOST_BYTES + 1, decode_content=True)
        document = json.loads(content) if len(content) <= _MOST_BYTES else None
        if not isinstance(document, dict):
            raise ValueError("no document")
        return document


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by the way to it: ``realm_access.roles``."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _reachable_safely(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    )
