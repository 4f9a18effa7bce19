"""One association as acceptor (PS3.8 7.1): who may come in, what is agreed, and what is left when it is over."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import (
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_role
from pynetdicom.transport import AddressInformation, AssociationSocket
from sqlalchemy.exc import SQLAlchemyError

from scp import identity
from scp.channel import Operation
from scp.commands import StoreRequest
from scp.receive import Provider
from scp.services import Services
from scp.storage import VERIFICATION, Reception, Storage, choose_syntax
from store.instances import Provenance

_log = logging.getLogger(__name__)
_ABSTRACT_SYNTAX_NOT_SUPPORTED, _TRANSFER_SYNTAXES_NOT_SUPPORTED = 0x03, 0x04
# Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4).
_CALLING_AE_NOT_RECOGNISED = (1, 1, 3)
_CALLED_AE_NOT_RECOGNISED = (1, 1, 7)
_IDENTITY_NOT_ACCEPTED = (1, 1, 1)
_TEMPORARY_CONGESTION = (2, 3, 1)
_LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may open an association, and its limits; times in seconds."""

    ae_title: str
    called_ae_titles: frozenset[str]
    """Empty: any."""
    calling_ae_titles: frozenset[str]
    """Empty: any."""
    max_pdu: int
    acse_timeout: float
    dimse_timeout: float
    network_timeout: float
    user_identity: str
    """``ignore``, ``optional`` or ``required``."""
    users: Mapping[str, str]
    """Digests of passcodes by user name (``scp.identity``)."""
    needs_tls: Callable[[str], bool]
    """Whether a calling AE title may come over TLS only."""
    refused: Callable[[str, str, str], None] = lambda _calling_ae, _address, _reason: None
    """Hears who was rejected, and why."""


class _Negotiation(ACSE):
    """pynetdicom's association control with our rules of acceptance, exact for each presentation context."""

    def _negotiate_as_acceptor(self) -> None:
        assoc: Any = self.assoc
        request: Any = self.requestor.primitive
        self.requestor.ae_title = request.calling_ae_title
        rejection = assoc.rejection()
        if rejection:
            result, reason = rejection
            _log.warning("association with %s is rejected: %s", assoc.peer, reason)
            assoc.refused(reason)
            self.send_reject(*result)
            assoc.kill()
            return
        contexts = [self._context(proposed) for proposed in request.presentation_context_definition_list]
        assoc._accepted_cx = {cx.context_id: cx for cx in contexts if cx.result == 0x00}
        assoc._rejected_cx = [cx for cx in contexts if cx.result != 0x00]
        for role in self._roles(cx for cx in contexts if cx.result == 0x00):
            self.acceptor.add_negotiation_item(role)
        for item in self._extended():
            self.acceptor.add_negotiation_item(item)
        given = self.requestor.user_identity
        if given is not None and given.positive_response_requested and assoc.identifies:
            answer = UserIdentityNegotiation()
            answer.server_response = b""
            self.acceptor.add_negotiation_item(answer)
        self.send_accept()
        assoc.is_established = True
        _log.info("association with %s is accepted", assoc.peer)

    def _roles(self, accepted: Iterable[PresentationContext]) -> Iterator[SCP_SCU_RoleSelectionNegotiation]:
        """Who may be what, as the other side proposes it (PS3.7 D.3.3.4): SCP of what it tells us or stores with us.

        A C-GET brings instances to the requestor, the result of a storage commitment comes from one.
        """
        for uid in {str(cx.abstract_syntax) for cx in accepted}:
            proposed = self.requestor.role_selection.get(UID(uid))
            if proposed is not None:
                yield build_role(uid, scu_role=bool(proposed.scu_role), scp_role=bool(proposed.scp_role))

    def _extended(self) -> Iterator[SOPClassExtendedNegotiation]:
        """Answers to SOP Class Extended Negotiation (PS3.7 D.3.3.5); what is agreed stays with the association."""
        assoc: Any = self.assoc
        for uid, proposed in self.requestor.sop_class_extended.items():
            agreed = assoc.services.extended(str(uid), proposed)
            if agreed is not None:
                assoc.extended[str(uid)] = agreed
                item = SOPClassExtendedNegotiation()
                item.sop_class_uid, item.service_class_application_information = uid, agreed
                yield item

    def _context(self, proposed: Any) -> PresentationContext:
        """What we answer to one proposed presentation context (PS3.8 9.3.3.2)."""
        context = PresentationContext()
        context.context_id = proposed.context_id
        context.abstract_syntax = proposed.abstract_syntax
        assoc: Any = self.assoc
        choose = assoc.services.choose_syntax if assoc.services.offers(str(proposed.abstract_syntax)) else choose_syntax
        syntax = choose([str(uid) for uid in proposed.transfer_syntax])
        if not assoc.supports(str(proposed.abstract_syntax)):
            context.result = _ABSTRACT_SYNTAX_NOT_SUPPORTED
        elif syntax is None:
            context.result = _TRANSFER_SYNTAXES_NOT_SUPPORTED
        else:
            context.result = 0x00
            context._as_scp = True
        context.transfer_syntax = [syntax or proposed.transfer_syntax[0]]
        return context


class _Rest:
    """Stands in for pynetdicom's pause switch: its reactor rests here until there is something to do."""

    def __init__(self, assoc: StorageAssociation) -> None:
        self._assoc = assoc

    def wait(self) -> None:
        provider = self._assoc.dul
        if provider.to_user_queue.empty() and self._assoc.dimse.msg_queue.empty() and provider.is_alive():
            provider.bell.wait(0.5)
        provider.bell.clear()

    def set(self) -> None:
        self._assoc.dul.bell.set()

    def clear(self) -> None:
        """Nothing here is ever sent by us as a user, so nobody needs the reactor to pause."""


class StorageAssociation(Association):
    """An association in which the peer stores instances with us."""

    dul: Any

    def __init__(
        self,
        ae: ApplicationEntity,
        sock: socket.socket,
        peer: tuple[Any, ...],
        local: tuple[Any, ...],
        *,
        secure: bool,
        policy: Policy,
        storage: Storage,
        services: Services,
        over_limit: bool,
        ended: Callable[[StorageAssociation], None],
    ) -> None:
        super().__init__(ae, "acceptor")
        self.name = f"association-{peer[0]}-{peer[1]}"
        self._policy = policy
        self._storage = storage
        self.services = services
        self.extended: dict[str, bytes] = {}
        """What was agreed by SOP Class Extended Negotiation."""
        self.afterwards: list[Callable[[], None]] = []
        """What a service wants to do over this association once its response is sent."""
        self._over_limit = over_limit
        self._ended = ended
        self._peer = peer
        self._secure = secure
        self._sock = sock
        self._begin: Callable[[StoreRequest, str, str], Reception] | None = None
        self.acse = _Negotiation(self)
        self.dul = Provider(self, self._receive, self._operation, policy.max_pdu)
        self.dul.name = f"{self.name}-provider"
        self._reactor_checkpoint: Any = _Rest(self)
        self.acse_timeout = policy.acse_timeout
        self.dimse_timeout = policy.dimse_timeout
        self.network_timeout = policy.network_timeout
        self.dul.artim_timer.timeout = policy.acse_timeout
        self.set_socket(AssociationSocket(self, client_socket=sock))
        self.acceptor.maximum_length = policy.max_pdu
        self.acceptor.ae_title = policy.ae_title
        self.acceptor.address_info = AddressInformation.from_tuple(local)
        self.acceptor.implementation_class_uid = ae.implementation_class_uid
        self.acceptor.implementation_version_name = ae.implementation_version_name
        self.requestor.address_info = AddressInformation.from_tuple(peer)
        for event, handler in services.handlers():
            self.bind(event, handler)

    @property
    def identifies(self) -> bool:
        """Whether user identities are looked at; only then they are answered."""
        return self._policy.user_identity != "ignore"

    @property
    def address(self) -> str:
        """The peer's address, without its port."""
        return str(self._peer[0])

    @property
    def peer(self) -> str:
        """The peer as logs name it."""
        request: Any = self.requestor.primitive
        titles = f"{request.calling_ae_title} -> {request.called_ae_title} " if request else ""
        return f"{titles}at {self._peer[0]}:{self._peer[1]}"

    def rejection(self) -> tuple[tuple[int, int, int], str] | None:
        """Why this association is not accepted: result, source and reason, and in words."""
        request: Any = self.requestor.primitive
        if self._over_limit:
            return _LOCAL_LIMIT_EXCEEDED, "there are too many associations"
        if self._policy.called_ae_titles and request.called_ae_title not in self._policy.called_ae_titles:
            return _CALLED_AE_NOT_RECOGNISED, "the called AE title is not allowed"
        if self._policy.calling_ae_titles and request.calling_ae_title not in self._policy.calling_ae_titles:
            return _CALLING_AE_NOT_RECOGNISED, "the calling AE title is not allowed"
        try:
            if not self._secure and self._policy.needs_tls(str(request.calling_ae_title)):
                return _CALLING_AE_NOT_RECOGNISED, "this node's associations must be over TLS"
        except SQLAlchemyError as error:  # nobody can say who may come, and nothing could be taken
            return _TEMPORARY_CONGESTION, f"the database is not available: {getattr(error, 'orig', None) or error}"
        if not self._identified():
            return _IDENTITY_NOT_ACCEPTED, "the user identity is missing or wrong"
        return None

    def refused(self, reason: str) -> None:
        """Pass on that it was rejected."""
        self._policy.refused(str(self.requestor.ae_title or "").strip(), self.address, reason)

    def _identified(self) -> bool:
        """Whether the other side is who it says, as far as the policy asks (PS3.7 D.3.3.7)."""
        if self._policy.user_identity == "ignore":
            return True
        given = self.requestor.user_identity
        if given is None:
            return self._policy.user_identity == "optional"
        return identity.is_known(
            self._policy.users,
            int(given.user_identity_type or 0),
            given.primary_field or b"",
            given.secondary_field or b"",
        )

    def supports(self, abstract_syntax: str) -> bool:
        return (
            abstract_syntax == VERIFICATION
            or abstract_syntax in self._storage.sop_classes
            or self.services.offers(abstract_syntax)
        )

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        finally:
            self.dul.kill_dul()
            self.dul.join(timeout=max(self._policy.dimse_timeout, 1.0))
            for end in (lambda: self._sock.shutdown(socket.SHUT_RDWR), self._sock.close):
                with suppress(OSError):
                    end()
            self._ended(self)
            _log.info("association with %s is over", self.peer)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        super()._serve_request(msg, context_id)
        while self.afterwards and self.is_established:
            work = self.afterwards.pop(0)
            self._is_paused = True  # we are the reactor: nobody else takes the answer
            try:
                work()
            except Exception:  # noqa: BLE001 - the association may go on
                _log.exception("what was to be done over the association with %s failed", self.peer)
            finally:
                self._is_paused = False

    def cut(self) -> None:
        """End it now, from another thread: whatever waits for the socket returns."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self.dul.wake()

    def _operation(self, context_id: int, command_field: int) -> tuple[Operation, str, str] | None:
        """Who serves such a request in the provider's thread, with SOP class and transfer syntax of its context."""
        context = self._accepted_cx.get(context_id)
        if context is None:
            return None
        abstract_syntax = str(context.abstract_syntax)
        operation = self.services.operation(abstract_syntax, command_field)
        return None if operation is None else (operation, abstract_syntax, str(context.transfer_syntax[0]))

    def _receive(self, request: StoreRequest) -> Reception:
        """A C-STORE-RQ has come: begin to receive its data set."""
        if self._begin is None:
            primitive: Any = self.requestor.primitive
            self._begin = self._storage.receiver(
                Provenance(str(primitive.calling_ae_title), str(primitive.called_ae_title), str(self._peer[0]))
            )
        context = self._accepted_cx.get(request.context_id)
        if context is None:
            return self._begin(request, "", "")
        return self._begin(request, str(context.abstract_syntax), str(context.transfer_syntax[0]))


class Associations:
    """The running associations of a process."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._lock = threading.Lock()
        self._running: dict[StorageAssociation, bool] = {}

    def add(self, association: StorageAssociation, *, counted: bool) -> None:
        with self._lock:
            self._running[association] = counted

    def ended(self, association: StorageAssociation) -> None:
        with self._lock:
            counted = self._running.pop(association, False)
        if counted:
            self._leave()

    def __len__(self) -> int:
        with self._lock:
            return len(self._running)

    def cut_all(self, within: float) -> None:
        """End all of them; one that is just registering an instance may still answer. Returns when they are over."""
        with self._lock:
            running = list(self._running)
        for association in running:
            association.cut()
        deadline = time.monotonic() + within
        for association in running:
            association.join(max(0.0, deadline - time.monotonic()))
