"""C-FIND over what we hold and held: from a query to its matches, page by page (PS3.4 C.4.1).

SQL narrows the search by indexes, Python says what SQL cannot; what is computed for a match is computed for a page of
matches at a time. Instances of no patient, and those in conflict with one received before, are not found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from media.attributes import Attribute, Attributes, parse
from media.encoding import EXPLICIT_LE
from media.problems import NotDicom
from store.matching import (
    BadKey,
    Predicate,
    day_condition,
    has_wildcard,
    moment_condition,
    name_groups,
    patient_name_condition,
    predicate,
    range_condition,
    range_of,
    text_condition,
)
from store.models import Instance, Patient, Series, Study
from store.models_jobs import Disc
from store.query_facts import Fact, facts_of, first_of_its_uid
from store.query_keys import (
    COMPUTED,
    FACTS,
    FILE_SET_ID,
    FILE_SET_UID,
    FIRST,
    INSTANCE_AVAILABILITY,
    UNIQUE,
    Key,
    Level,
    Query,
    item_of,
    text_values,
)
from store.states import DiscState

MODELS: Mapping[Level, Any] = {"PATIENT": Patient, "STUDY": Study, "SERIES": Series, "IMAGE": Instance}
_STUDY_DATE, _STUDY_TIME = 0x00080020, 0x00080030
_UIDS = (0x0020000D, 0x0020000E, 0x00080018)
_TEXTS = (0x00100020, 0x00080050)
"""Patient ID, Accession Number."""
_PATIENT_NAME = 0x00100010
_NARROW = 3
"""Characters before a wildcard that leave few matches."""
_MODALITIES = 0x00080061
_FIRST_PAGE, _PAGE = 64, 256
_NUMBERS = (b"IS", b"US")
_LARGE = 1 << 62
"""Beyond what databases take; IS ends at 2^31 (PS3.5 6.2)."""
_Test = tuple[int, Callable[[Attribute], bool]]


@dataclass(frozen=True, slots=True)
class Match:
    """One match: the keys that were asked for and are supported, with their values, and what is computed."""

    attributes: Attributes
    fact: Fact


def find(
    session: Session,
    query: Query,
    page_done: Callable[[], None] = lambda: None,
    *,
    order: Literal["", "latest", "received"] = "",
) -> Iterator[Match]:
    """Every match, while the session lives. Raises BadKey for a value that its VR forbids.

    ``order``: none in particular, what was registered last first, or in the order of registration.

    Read by a cursor of the database (opened ``for_queries``, where somebody slow takes the matches): of however many
    only some hundred are held. ``page_done`` is called behind each page of rows that were looked at, also where none of
    them matched.
    """
    plan = _Plan(query, postgresql=session.get_bind().dialect.name == "postgresql")
    statement = plan.statement
    if order:
        row_id = MODELS[query.level].id
        if any(query.values(tag) for tag in query.keys):
            row_id = row_id + 0  # else its index would be walked through, and those of the keys be passed over
        statement = statement.order_by(row_id.desc() if order == "latest" else row_id)
    connection = session.connection()
    options: dict[str, Any] = {} if plan.is_small else {"stream_results": True, "max_row_buffer": _PAGE}
    result = connection.execute(statement, execution_options=options)
    try:
        size = _FIRST_PAGE
        while rows := result.fetchmany(size):
            yield from plan.page(session, rows)
            page_done()
            if len(rows) < size:
                break
            size = _PAGE
    finally:
        result.close()


class _Plan:
    """A query made ready: the statement, what is left to test in Python, and where each key's value comes from."""

    def __init__(self, query: Query, *, postgresql: bool) -> None:
        self.query = query
        self.postgresql = postgresql
        self._columns: dict[str, Any] = {}
        self._from_columns: list[Key] = []
        self._from_first: list[Key] = []
        self._computed: list[Key] = []
        self._tests: list[_Test] = []
        self._fact_tests = [
            (tag, predicate(tag, FACTS[tag], values))
            for tag in (INSTANCE_AVAILABILITY, FILE_SET_ID, FILE_SET_UID)
            if (values := query.values(tag))
        ]
        conditions = []
        for key in query.supported():
            if key.source == FIRST:
                self._from_first.append(key)
                self._test(key)
            elif key.source == COMPUTED:
                self._computed.append(key)
                conditions += self._computed_condition(key)
            else:
                self._from_columns.append(key)
                column = getattr(MODELS[key.level], key.source)
                self._columns[key.source] = column
                conditions += self._condition(key, column)
        if query.level == "IMAGE" and self._from_first:
            self._columns["directory_keys"] = Instance.directory_keys
        self.statement = self._statement(conditions)

    @property
    def is_small(self) -> bool:
        """Whether so few rows will come that a cursor of the database's would cost more than it saves."""
        values = self.query.values(UNIQUE[self.query.level].tag)
        return self.query.level != "PATIENT" and 0 < len(values) <= _PAGE and not any(map(has_wildcard, values))

    def _statement(self, conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
        model = MODELS[self.query.level]
        # By the index of states, if any is verified at all: what counts is asked of each disc that matters.
        discs = exists().where(Disc.state == DiscState.VERIFIED).label("any_disc")
        columns = [model.id.label("row_id"), discs]
        for level in ("STUDY", "SERIES"):
            if any(key.level == level for key in self._from_first):
                columns.append(MODELS[level].id.label(f"{level}_id"))
        if self.query.level == "IMAGE":
            columns.append(Instance.spool_path.label("row_path"))
        columns += [column.label(name) for name, column in self._columns.items()]
        statement = select(*columns).select_from(Patient)
        if self.query.level != "PATIENT":
            statement = statement.join(Study, Study.patient_id == Patient.id)
        if self.query.level in ("SERIES", "IMAGE"):
            statement = statement.join(Series, Series.study_id == Study.id)
        if self.query.level == "IMAGE":
            statement = statement.join(Instance, Instance.series_id == Series.id)
            statement = statement.where(first_of_its_uid())
        return statement.where(*conditions)

    # --- What is to match ---

    def _condition(self, key: Key, column: Any) -> list[ColumnElement[bool]]:
        values = self.query.values(key.tag)
        if not values:
            return []
        if key.vr == b"PN":
            self._test(key)
            if column is not Patient.patient_name:
                return []
            names = [patient_name_condition(value, postgresql=self.postgresql) for value in values]
            narrow = [name for name in names if name is not None]
            return [or_(*narrow)] if len(narrow) == len(names) else []
        if key.vr in _NUMBERS:
            try:
                numbers = [int(value) for value in values]
            except ValueError:
                raise BadKey(key.tag) from None
            if any(abs(number) >= _LARGE for number in numbers):
                raise BadKey(key.tag)
            return [column.in_(numbers)]
        if key.vr in (b"DA", b"TM"):
            return self._range_condition(key, column, values)
        if any(has_wildcard(value) for value in values):
            self._test(key)  # SQL may give more
        if column is Series.modality and (self._is_narrow() or self.query.values(_STUDY_DATE)):
            column = self._without_index(column)
        return [text_condition(column, values, postgresql=self.postgresql)]

    def _is_narrow(self) -> bool:
        """Whether a key is given that has an index and few matches."""
        values = {tag: self.query.values(tag) for tag in (*_UIDS, *_TEXTS)}
        values[_PATIENT_NAME] = tuple(
            group for name in self.query.values(_PATIENT_NAME) for group in name_groups(name)[:1]
        )
        return any(
            all(len(re.split(r"[*?]", value, maxsplit=1)[0]) >= _NARROW for value in given)
            for given in values.values()
            if given
        )

    def _without_index(self, column: Any) -> Any:
        """SQLite, which knows nothing of how often a value occurs, would rather take this index than a better one."""
        return column if self.postgresql else func.coalesce(column, "")

    def _range_condition(self, key: Key, column: Any, values: Sequence[str]) -> list[ColumnElement[bool]]:
        bounds = [range_of(key.tag, key.vr, value) for value in values]
        if self.query.combined_datetime and key.tag in (_STUDY_DATE, _STUDY_TIME):
            dates, times = self.query.values(_STUDY_DATE), self.query.values(_STUDY_TIME)
            if len(dates) == len(times) == 1:
                if key.tag == _STUDY_TIME:
                    return []
                moments = range_of(_STUDY_TIME, b"TM", times[0])
                args = (Study.study_date, Study.study_time, bounds[0], moments)
                return [moment_condition(*args, postgresql=self.postgresql)]
        if column is Study.study_date and any(first != last[:-1] for first, last in bounds) and self._is_narrow():
            column = self._without_index(column)
        if key.vr == b"DA":
            return [or_(*(day_condition(column, each) for each in bounds))]
        return [or_(*(range_condition(column, each, postgresql=self.postgresql) for each in bounds))]

    def _computed_condition(self, key: Key) -> list[ColumnElement[bool]]:
        values = self.query.values(key.tag)
        if not values or not key.matched:
            return []
        if key.tag == _MODALITIES:
            condition = text_condition(Series.modality, values, postgresql=self.postgresql)
            return [exists().where(and_(Series.study_id == Study.id, condition))]
        condition = text_condition(Instance.sop_class_uid, values, postgresql=self.postgresql)
        return [exists().where(and_(Series.study_id == Study.id, Instance.series_id == Series.id, condition))]

    def _test(self, key: Key) -> None:
        """What only Python can tell of a key, or can tell exactly."""
        if key.vr == b"SQ":
            item = item_of(self.query.keys[key.tag])
            wanted = {
                tag: predicate(tag, attribute.vr, values)
                for tag, attribute in item.items()
                if tag in key.items and (values := text_values(attribute))
            }
            if wanted:
                self._tests.append((key.tag, _sequence_test(wanted)))
        elif values := self.query.values(key.tag):
            self._tests.append((key.tag, _text_test(predicate(key.tag, key.vr, values))))

    # --- What was found ---

    def page(self, session: Session, rows: Sequence[Row[Any]]) -> Iterator[Match]:
        """The matches among some rows, with everything that was asked for."""
        firsts = self._first_keys(session, rows) if self._from_first else {}
        matches: list[tuple[Row[Any], Attributes]] = []
        for row in rows:
            attributes = {key.tag: _attribute(key.vr, getattr(row, key.source)) for key in self._from_columns}
            for key in self._from_first:
                attributes[key.tag] = firsts[row.row_id, key.level].get(key.tag) or _attribute(key.vr, "")
            if all(test(attributes[tag]) for tag, test in self._tests):
                matches.append((row, attributes))
        computed = frozenset(key.keyword for key in self._computed)
        facts = facts_of(session, self.query.level, [row for row, _ in matches], computed)
        for row, attributes in matches:
            fact = facts[row.row_id]
            if not all(wanted(fact.told[tag]) for tag, wanted in self._fact_tests):
                continue
            for key in self._computed:
                attributes[key.tag] = _attribute(key.vr, fact.computed.get(key.keyword, ""))
            yield Match(attributes, fact)

    def _first_keys(self, session: Session, rows: Sequence[Row[Any]]) -> dict[tuple[int, Level], Attributes]:
        """For each row and each level of which keys are wanted: those of its first instance."""
        found: dict[tuple[int, Level], Attributes] = {}
        for level in dict.fromkeys(key.level for key in self._from_first):
            if level == "IMAGE":
                found |= {(row.row_id, level): _parsed(row.directory_keys) for row in rows}
                continue
            above = {row.row_id: getattr(row, f"{level}_id") for row in rows}
            entity = Series.study_id if level == "STUDY" else Series.id
            statement = (
                select(entity, func.min(Instance.id))
                .join(Instance, Instance.series_id == Series.id)
                .where(entity.in_(set(above.values())), first_of_its_uid())
                .group_by(entity)
            )
            firsts = {entity_id: first for entity_id, first in session.execute(statement)}  # noqa: C416
            keys = select(Instance.id, Instance.directory_keys).where(Instance.id.in_(firsts.values()))
            parsed = {row_id: _parsed(blob) for row_id, blob in session.execute(keys)}
            for row_id, entity_id in above.items():
                found[row_id, level] = parsed.get(firsts.get(entity_id, 0), {})
        return found


def _parsed(directory_keys: bytes) -> Attributes:
    try:
        return parse(directory_keys, EXPLICIT_LE)
    except NotDicom:  # kept by a version that knew less: as if the instance had none
        return {}


def _attribute(vr: bytes, value: str | float | tuple[str, ...] | None) -> Attribute:
    if vr == b"SQ":
        return Attribute(vr, ())
    if vr == b"US":
        return Attribute(vr, b"" if value in (None, "") else int(value).to_bytes(2, "little"))  # type: ignore[arg-type]
    if isinstance(value, tuple):
        return Attribute(vr, "\\".join(value))
    return Attribute(vr, "" if value is None else str(value))


def _text_test(matches: Predicate) -> Callable[[Attribute], bool]:
    return lambda attribute: isinstance(attribute.value, str) and matches(attribute.value)


def _sequence_test(wanted: Mapping[int, Predicate]) -> Callable[[Attribute], bool]:
    """Whether one item matches in everything that is wanted (PS3.4 C.2.2.2.6)."""

    def test(attribute: Attribute) -> bool:
        items = attribute.value if isinstance(attribute.value, tuple) else ()
        return any(
            all(
                tag in item and isinstance(text := item[tag].value, str) and matches(text)
                for tag, matches in wanted.items()
            )
            for item in items
        )

    return test
