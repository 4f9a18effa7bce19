"""Services beside Storage and Verification, as an association offers them: SOP classes and who handles their messages.

Of most the messages are few: pynetdicom decodes them and calls our handlers. C-STORE has a way of its own
(``scp.receive``), and what answers with many messages runs as an ``Operation`` (``scp.channel``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scp.channel import Operation

_UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2")
"""Transfer syntaxes of data sets that are no instances, in our order of preference."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service class of ours."""

    sop_classes: frozenset[str]
    handlers: tuple[tuple[Any, Callable[..., Any]], ...] = ()
    """pynetdicom's event and the function that it calls for each request of these SOP classes."""
    operations: Mapping[int, Operation] = field(default_factory=dict)
    """By Command Field: who serves such requests instead, in the thread that reads the socket."""
    extended: Callable[[bytes], bytes] | None = None
    """SOP Class Extended Negotiation (PS3.7 D.3.3.5): what is agreed, from what is proposed."""


@dataclass(frozen=True, slots=True)
class Services:
    """What all associations of a process offer; an event's request goes to the service that has its SOP class."""

    services: Sequence[Service] = field(default_factory=tuple)

    def offers(self, abstract_syntax: str) -> bool:
        return any(abstract_syntax in service.sop_classes for service in self.services)

    def operation(self, abstract_syntax: str, command_field: int) -> Operation | None:
        """Who serves such a request, if it is not pynetdicom's."""
        for service in self.services:
            if abstract_syntax in service.sop_classes:
                return service.operations.get(command_field)
        return None

    def extended(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        """The answer to a SOP Class Extended Negotiation item; None: none is given."""
        for service in self.services:
            if abstract_syntax in service.sop_classes and service.extended is not None:
                return service.extended(proposed)
        return None

    def choose_syntax(self, proposed: Sequence[str]) -> str | None:
        return next((syntax for syntax in _UNCOMPRESSED if syntax in proposed), None)

    def handlers(self) -> list[tuple[Any, Callable[..., Any]]]:
        """For ``Association.bind``: pynetdicom keeps one function an event, so each looks for the service meant."""
        events = dict.fromkeys(event for service in self.services for event, _ in service.handlers)
        return [(event, self._of(event)) for event in events]

    def _of(self, event: Any) -> Callable[..., Any]:
        def handle(happened: Any) -> Any:
            wanted = str(happened.context.abstract_syntax)
            for service in self.services:
                if wanted in service.sop_classes:
                    for kind, function in service.handlers:
                        if kind is event:
                            return function(happened)
            raise LookupError(f"no service handles {event.name} of {wanted}")

        return handle
