"""A small OpenID provider on loopback: discovery, authorization with PKCE, tokens, keys, user info. For tests."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

CLIENT, SECRET = "burnish", "client-secret"


@dataclass
class Provider:
    """What it says of whoever comes, and how it misbehaves when told to."""

    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "s-1", "preferred_username": "ann", "groups": []})
    user_info: dict[str, Any] = field(default_factory=dict)
    change_token: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
    """What is put into the ID token instead of the right claims."""
    header: dict[str, Any] = field(default_factory=lambda: {"alg": "ES256"})
    issuer: str = ""
    """Another one than its address, where it lies."""
    sign_with: Any = None
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "k1"})
        self.codes: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.get(self)

            def do_POST(self) -> None:
                provider.post(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            names = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "keys"}
            document = {"issuer": self.issuer or self.url} | {key: f"{self.url}/{name}" for key, name in names.items()}
            answer(handler, document | ({"userinfo_endpoint": f"{self.url}/user"} if self.user_info else {}))
        elif path == "/keys":
            answer(handler, {"keys": [self.key.as_dict(private=False)]})
        elif path == "/user" and handler.headers.get("Authorization") == "Bearer access":
            answer(handler, self.user_info)
        else:
            answer(handler, {"error": "no"}, 404)

    def visit(self, location: str) -> str:
        """Sign in there, as a browser that was sent to ``location``: where it is sent back to."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        assert location.startswith(f"{self.url}/auth?") and query["response_type"] == "code"
        assert query["client_id"] == CLIENT and query["code_challenge_method"] == "S256" and query["nonce"]
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def post(self, handler: BaseHTTPRequestHandler) -> None:
        form = parse_qs(handler.rfile.read(int(handler.headers["Content-Length"])).decode())
        login = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        query = self.codes.pop(form["code"][0], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"][0].encode()).digest()).decode()
        if (
            query is None
            or handler.headers.get("Authorization") != f"Basic {login}"
            or challenge.rstrip("=") != query["code_challenge"]
            or form["redirect_uri"][0] != query["redirect_uri"]
        ):
            answer(handler, {"error": "invalid_grant"}, 400)
            return
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": query["nonce"]} | self.claims
        token = self.signed(self.change_token(claims))
        answer(handler, {"access_token": "access", "token_type": "Bearer", "expires_in": 300, "id_token": token})

    def signed(self, claims: dict[str, Any]) -> str:
        if self.header["alg"] == "none":
            parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
            return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."
        if self.header["alg"] == "HS256":
            key = OctKey.import_key(SECRET * 4)
            return jwt.encode({"alg": "HS256"}, claims, key, algorithms=["HS256"])
        return jwt.encode(self.header | {"kid": "k1"}, claims, self.sign_with or self.key)


def answer(handler: BaseHTTPRequestHandler, document: dict[str, Any], status: int = 200) -> None:
    body = json.dumps(document).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
