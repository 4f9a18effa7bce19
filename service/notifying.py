"""Telling people and programs what happened to jobs: webhooks and e-mail, tried again until they are taken."""

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
from datetime import timedelta
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any
from urllib.parse import urlsplit

from config.settings import Mail, MailTo, Settings, Webhook
from jobs.context import Context
from service.logs import logger
from store import notices

_TIMEOUT = 10.0
_WORDS = {
    notices.DONE: "is done",
    notices.FAILED: "failed",
    notices.NEEDS_PERSON: "needs a person",
    notices.DAMAGED: "is damaged or lost",
}


class NotTold(Exception):
    """The target did not take it; the text says why."""


class Away(NotTold):
    """The target does not answer at all."""


class Notifying:
    """What the clock calls; one a service."""

    def __init__(self, context: Context) -> None:
        self._context = context
        settings = context.settings
        self._hooks = {hook.name: hook for hook in settings.webhooks}
        self._mails = {mail.name: mail for mail in settings.mails}
        self._give_up = timedelta(hours=settings.mail.give_up_hours)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody is to be told anything."""
        return bool(self._hooks or self._mails)

    def tick(self) -> None:
        """Find what is new, and tell what is due."""
        db = self._context.db
        targets = {hook.name: hook.events for hook in self._hooks.values()}
        targets |= {mail.name: mail.events for mail in self._mails.values()}
        notices.collect(db, targets)
        away: dict[str, Away] = {}
        for due in notices.claim(db, list(targets)):
            try:
                if due.target in away:  # the others shall not wait for it as many times as there are notices
                    raise away[due.target]
                self.tell(due.target, {"notice": f"N{due.id}", **due.document})
            except NotTold as error:
                if isinstance(error, Away):
                    away[due.target] = error
                again = notices.failed(db, due, str(error), give_up_after=self._give_up)
                if due.attempts == 1 or again is None:
                    logger("service.notifying").warning(
                        "a notice was not taken", target=due.target, reason=str(error), given_up=again is None
                    )
            else:
                notices.told(db, due.id)

    def tell(self, target: str, document: Mapping[str, Any]) -> None:
        """Tell one target. Raises NotTold, and KeyError for one that the settings do not know."""
        hook = self._hooks.get(target)
        if hook is not None:
            post(hook, document, ca=self._context.settings.in_data(hook.ca))
        else:
            send(self._context.settings.mail, self._mails[target], document, settings=self._context.settings)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def post(hook: Webhook, document: Mapping[str, Any], *, ca: str = "") -> None:
    """POST a notice as JSON, signed where the hook has a secret. Raises NotTold."""
    content = json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "Burnish", "Idempotency-Key": str(document["notice"])}
    if hook.secret:
        headers["Burnish-Signature"] = signature(hook.secret, content, at=int(time.time()))
    request = urllib.request.Request(hook.url, content, headers, method="POST")
    context = ssl.create_default_context(cafile=ca or None)
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=_TIMEOUT) as response:
            response.read(1024)
    except urllib.error.HTTPError as error:
        raise NotTold(f"{_where(hook.url)} answered {error.code}") from error
    except OSError as error:
        raise Away(f"{_where(hook.url)}: {getattr(error, 'reason', None) or error}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise NotTold(f"{_where(hook.url)}: no answer of HTTP ({type(error).__name__})") from error


def signature(secret: str, content: bytes, *, at: int) -> str:
    """``t=SECONDS,v1=HEX``: HMAC-SHA-256 with the secret of the seconds, a full stop and the body."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + content, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _where(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}"


def send(mail: Mail, to: MailTo, document: Mapping[str, Any], *, settings: Settings) -> None:
    """Send a notice by e-mail. Raises NotTold."""
    message = composed(mail, to, document, institution=settings.site.institution)
    context = ssl.create_default_context(cafile=settings.in_data(mail.ca) or None)
    try:
        if mail.security == "tls":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(mail.host, mail.port, timeout=_TIMEOUT, context=context)
        else:
            connection = smtplib.SMTP(mail.host, mail.port, timeout=_TIMEOUT)
        with connection:
            if mail.security == "starttls":
                connection.starttls(context=context)
            if mail.user:
                connection.login(mail.user, mail.password)
            refused = connection.send_message(message)
    except smtplib.SMTPException as error:  # before OSError, which it is one of
        raise NotTold(f"{mail.host}:{mail.port}: {error}") from error
    except OSError as error:
        raise Away(f"{mail.host}:{mail.port}: {error}") from error
    except ValueError as error:  # a password or an address that this server's way of signing in cannot say
        raise NotTold(
            f"{mail.host}:{mail.port}: {type(error).__name__} in mail.user, mail.password or an address"
        ) from error
    if refused:  # the others have it; to send it again would tell them again
        logger("service.notifying").warning("an e-mail was not taken for all", target=to.name, refused=len(refused))


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


def problems(settings: Settings) -> list[str]:
    """What is wrong with webhooks and e-mail in the settings, a line each."""
    found = []
    names = [hook.name for hook in settings.webhooks] + [mail.name for mail in settings.mails]
    twice = sorted({name for name in names if names.count(name) > 1})
    found += [f"webhooks, mails: there are two of the name {name!r}" for name in twice]
    for hook in settings.webhooks:
        parts = urlsplit(hook.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            found.append(f"webhooks.{hook.name}.url: {hook.url!r} is no address: https://HOST/PATH is wanted")
    if settings.mails and not (settings.mail.host and settings.mail.sender):
        found.append("mail.host, mail.sender: needed to send e-mail ([[mails]])")
    return found
