"""The ways on which the instances of a retrieve go out: back on the requestor's association, or to a destination."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from pydicom.uid import UID

from scp.channel import Channel, Message
from scp.commands import STATUS, number, store_command
from scp.sender import Sender, SenderFailed
from scp.sending import Outlet
from scp.sources import Source
from store.retrieval import Held


class Exit(Protocol):
    """Where the instances of one retrieve go."""

    def takes(self, sop_class_uid: str, transfer_syntax_uid: str) -> bool:
        """Raises SenderFailed where nothing can be sent any more."""

    def store(self, instance: Held, source: Source) -> int:
        """The status of the C-STORE of what it takes. Raises SenderFailed where no more can be sent."""

    def rest(self) -> None:
        """Nothing will be sent for a while: nobody is kept waiting."""


class Nowhere:
    """Where nothing can be sent."""

    def takes(self, _sop_class_uid: str, _transfer_syntax_uid: str) -> bool:
        return False

    def store(self, _instance: Held, _source: Source) -> int:
        raise SenderFailed("there is no association")

    def rest(self) -> None:
        return None


class SameAssociation:
    """The way back to the requestor of a C-GET, which is SCP of the storage classes it says so of."""

    def __init__(self, message: Message, channel: Channel) -> None:
        self._channel = channel
        self._outlet = Outlet(channel.socket, channel.max_pdu)
        self._message_id = message.message_id
        association = channel.association
        self._contexts: dict[tuple[str, str], int] = {}
        for context_id, context in association._accepted_cx.items():
            role = association.requestor.role_selection.get(UID(context.abstract_syntax))
            if role is not None and role.scp_role:
                self._contexts[str(context.abstract_syntax), str(context.transfer_syntax[0])] = context_id

    def takes(self, sop_class_uid: str, transfer_syntax_uid: str) -> bool:
        return (sop_class_uid, transfer_syntax_uid) in self._contexts

    def store(self, instance: Held, source: Source) -> int:
        context_id = self._contexts[instance.sop_class_uid, source.transfer_syntax_uid]
        self._channel.flush()
        self._message_id = self._message_id % 0xFFFF + 1
        command = store_command(self._message_id, instance.sop_class_uid, instance.sop_instance_uid)
        self._outlet.send(context_id, command, source.stream, source.length)
        return number(self._channel.response(), STATUS)

    def rest(self) -> None:
        return None


class OtherAssociation:
    """The way to a move destination: an association that is opened anew after a rest."""

    def __init__(self, open_: Callable[[], Sender], originator: tuple[str, int]) -> None:
        """Opens the association. Raises what ``open_`` does."""
        self._open = open_
        self._sender: Sender | None = open_()
        self._originator = originator

    def takes(self, sop_class_uid: str, transfer_syntax_uid: str) -> bool:
        return (sop_class_uid, transfer_syntax_uid) in self._ready().accepted

    def store(self, instance: Held, source: Source) -> int:
        sender = self._ready()
        return sender.store(
            sender.accepted[instance.sop_class_uid, source.transfer_syntax_uid],
            instance.sop_class_uid,
            instance.sop_instance_uid,
            source.stream,
            source.length,
            self._originator,
        )

    def _ready(self) -> Sender:
        if self._sender is None:
            self._sender = self._open()
        return self._sender

    def rest(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.release()

    def abort(self) -> None:
        """End it at once."""
        sender, self._sender = self._sender, None
        if sender is not None:
            with suppress(OSError):
                sender.abort()
