"""What requests may say; unknown keys are refused. Answers are the documents of the CLI's contract."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.answers import MAX_PAGE, BodyCursor, BodyLimit


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SelectionBody(_Body):
    """SELECT: several criteria are combined by AND, several values of one by OR."""

    study: list[str] = []
    series: list[str] = []
    sop: list[str] = []
    instance: list[Annotated[int, Field(ge=1, lt=1 << 62)]] = []
    patient_id: list[str] = []
    accession: list[str] = []
    date_range: str = ""
    modality: list[str] = []
    calling_ae: list[str] = []
    all: bool = False
    not_on_disc: bool = False

    def given(self) -> dict[str, Any]:
        return {key: value for key, value in self.model_dump().items() if value}


class OptionsBody(_Body):
    """How discs are made; what is left out is taken from the settings."""

    profile: str | None = None
    medium: str | None = None
    capacity_sectors: int | None = Field(default=None, ge=1, lt=1 << 40)
    burner: str | None = None
    copies: int | None = Field(default=None, ge=1, le=99)
    priority: str | None = None
    patients_per_disc: str | None = None
    conflicts: str | None = None
    skip_refused: bool | None = None
    compress: str | None = None
    allow_lossy: bool | None = None
    coerce: list[dict[str, Any]] | None = Field(default=None, max_length=1000)
    coerce_catalogue: bool | None = None
    iod: str | None = None
    protect: str | None = None
    protect_percent: float | None = Field(default=None, ge=3.3, le=200)
    allow_splitting: bool | None = None
    file_set_prefix: str | None = Field(default=None, pattern=r"^[A-Z0-9_]{0,9}$")
    purpose: str | None = None
    pull_from: str | None = Field(default=None, max_length=32)
    label_text: str | None = None
    label_using_information_extracted_from_instances: bool | None = None
    label_style_selection: str | None = None
    media_disposition: str | None = None
    barcode_value: str | None = None
    barcode_symbology: str | None = None

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class PlanBody(_Body):
    selection: SelectionBody
    options: OptionsBody = OptionsBody()


class JobBody(_Body):
    """Either a selection or a plan."""

    selection: SelectionBody | None = None
    plan: str | None = None
    options: OptionsBody = OptionsBody()
    idempotency_key: str | None = Field(default=None, max_length=255)


class FindBody(_Body):
    """Criteria of a search in the catalogue; in a body, so that no patient's name stands in a URL."""

    patient_id: str = ""
    patient_name: str = ""
    study: str = ""
    accession: str = ""
    series: str = ""
    sop: str = ""
    modality: str = ""
    date_range: str = ""
    limit: BodyLimit = MAX_PAGE
    cursor: BodyCursor = None

    def criteria(self) -> dict[str, str]:
        return self.model_dump(exclude={"limit", "cursor"})


class MediumBody(_Body):
    """A medium, by what identifies it; one of the two."""

    file_set_uid: str = Field(default="", max_length=64)
    file_set_id: str = Field(default="", max_length=32)


class CheckBody(_Body):
    """What came of reading a disc again."""

    disc: str
    good: bool
    how: str = Field(max_length=255)
    detail: dict[str, Any] = {}


class PurgeBody(_Body):
    min_copies: int | None = Field(default=None, ge=1, le=99)
    """None: as the settings say."""
    older_than_days: int | None = Field(default=None, ge=0, le=36_500)
    to_low_mark: bool = False
    """No more than brings the spool down to its low-water mark."""
    dry_run: bool = False


class DeleteBody(_Body):
    selection: SelectionBody


class NodeBody(_Body):
    """A remote node; see ``burnish nodes add``."""

    name: str = Field(max_length=32)
    ae_title: str = Field(max_length=16)
    host: str = Field(max_length=255)
    port: int = Field(ge=1, le=65535)
    retrieve: str = "move"
    tls: bool = False


class PullBody(_Body):
    """What to fetch; in a body, so that no patient's ID stands in a URL."""

    study: list[str] = []
    patient_id: list[str] = []
    accession: list[str] = []
    date_range: str = ""
    by: str | None = None


class SendBody(_Body):
    selection: SelectionBody
    commit: bool = False
