"""The ways in which a notice goes out: a POST to a webhook, an e-mail. Each has an end, however slow the receiver."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any
from urllib.parse import urlsplit

from config.sections import Mail, MailTo, Webhook
from config.settings import Settings
from service.logs import logger
from service.notifying_limit import Limit
from store import notices

SECONDS = 20.0
"""For a whole delivery, from the connection to the answer."""
_TIMEOUT = 10.0
"""Seconds without a byte."""
_WORDS = {
    notices.DONE: "is done",
    notices.FAILED: "failed",
    notices.NEEDS_PERSON: "needs a person",
    notices.DAMAGED: "is damaged or lost",
}


class NotTold(Exception):
    """The target did not take it; the text says why."""


class Away(NotTold):
    """The target does not answer at all, or not in time."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class _Http(urllib.request.HTTPHandler):
    def __init__(self, limit: Limit) -> None:
        super().__init__()
        self._limit = limit

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            return _watched(http.client.HTTPConnection(host, **options), self._limit)

        return self.do_open(connection, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, limit: Limit, tls: ssl.SSLContext) -> None:
        super().__init__(context=tls)
        self._limit = limit
        self._tls = tls

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            return _watched(http.client.HTTPSConnection(host, context=self._tls, **options), self._limit)

        return self.do_open(connection, request)


def _watched(connection: http.client.HTTPConnection, limit: Limit) -> http.client.HTTPConnection:
    limit.watch(lambda: connection.sock)
    return connection


def post(hook: Webhook, document: Mapping[str, Any], *, ca: str = "", limit: Limit | None = None) -> None:
    """POST a notice as JSON, signed where the hook has a secret. Raises NotTold."""
    content = json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "Burnish", "Idempotency-Key": str(document["notice"])}
    if hook.secret:
        headers["Burnish-Signature"] = signature(hook.secret, content, at=int(time.time()))
    request = urllib.request.Request(hook.url, content, headers, method="POST")
    tls = ssl.create_default_context(cafile=ca or None)
    with limit or Limit(SECONDS) as whole:
        opener = urllib.request.build_opener(_NoRedirects, _Http(whole), _Https(whole, tls))
        try:
            with opener.open(request, timeout=_TIMEOUT):  # what else it has to say is not waited for
                if whole.over:  # the end that we made looks like the end of its headers
                    raise OSError("cut off")
        except urllib.error.HTTPError as error:
            error.close()
            raise NotTold(f"{_where(hook.url)} answered {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if whole.over:
                raise Away(f"{_where(hook.url)}: no whole answer within {SECONDS:.0f} s") from error
            if isinstance(error, OSError):
                raise Away(f"{_where(hook.url)}: {getattr(error, 'reason', None) or error}") from error
            raise NotTold(f"{_where(hook.url)}: no answer of HTTP ({type(error).__name__})") from error


def signature(secret: str, content: bytes, *, at: int) -> str:
    """``t=SECONDS,v1=HEX``: HMAC-SHA-256 with the secret of the seconds, a full stop and the body."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + content, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _where(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}"


def send(
    mail: Mail, to: MailTo, document: Mapping[str, Any], *, settings: Settings, limit: Limit | None = None
) -> None:
    """Send a notice by e-mail. Raises NotTold."""
    message = composed(mail, to, document, institution=settings.site.institution)
    tls = ssl.create_default_context(cafile=settings.in_data(mail.ca) or None)
    where = f"{mail.host}:{mail.port}"
    with limit or Limit(SECONDS) as whole:
        try:
            refused = _sent(mail, message, tls, whole)
        except (OSError, ValueError) as error:
            if whole.over:
                raise Away(f"{where}: no whole answer within {SECONDS:.0f} s") from error
            if isinstance(error, smtplib.SMTPException):  # one of OSError, too
                raise NotTold(f"{where}: {error}") from error
            if isinstance(error, OSError):
                raise Away(f"{where}: {error}") from error
            # a password or an address that this server's way of signing in cannot say
            raise NotTold(f"{where}: {type(error).__name__} in mail.user, mail.password or an address") from error
    if refused:  # the others have it; to send it again would tell them again
        logger("service.notifying").warning("an e-mail was not taken for all", target=to.name, refused=len(refused))


def _sent(mail: Mail, message: EmailMessage, tls: ssl.SSLContext, limit: Limit) -> Mapping[str, Any]:
    """Send a message; returns who was refused."""
    connection = _SmtpOverTls(mail, tls, limit) if mail.security == "tls" else _Smtp(mail, limit)
    try:
        if mail.security == "starttls":
            connection.starttls(context=tls)
        if mail.user:
            connection.login(mail.user, mail.password)
        refused = connection.send_message(message)
        with suppress(OSError):  # it has it; how it says good-bye changes nothing
            connection.quit()
        return refused
    finally:
        connection.close()


class _Smtp(smtplib.SMTP):
    def __init__(self, mail: Mail, limit: Limit) -> None:
        limit.watch(lambda: self.sock)
        super().__init__(mail.host, mail.port, timeout=_TIMEOUT)


class _SmtpOverTls(smtplib.SMTP_SSL):
    def __init__(self, mail: Mail, tls: ssl.SSLContext, limit: Limit) -> None:
        limit.watch(lambda: self.sock)
        super().__init__(mail.host, mail.port, timeout=_TIMEOUT, context=tls)


def composed(mail: Mail, to: MailTo, document: Mapping[str, Any], *, institution: str) -> EmailMessage:
    """The e-mail of a notice."""
    what = str(document.get("job") or document.get("recall") or document.get("file_set_id") or "Burnish")
    message = EmailMessage()
    message["Subject"] = f"Burnish: {what} {_WORDS.get(str(document['event']), str(document['event']))}"
    message["From"] = mail.sender
    message["To"] = ", ".join(to.to)
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = make_msgid(domain=mail.sender.rpartition("@")[2].strip(" >") or "burnish")
    message["Auto-Submitted"] = "auto-generated"
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in document.items() if value not in (None, "")]
    message.set_content("\n".join([*lines, "", institution, ""]).rstrip() + "\n")
    return message
