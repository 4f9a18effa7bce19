"""What requests may say; unknown keys are refused. Answers are the documents of the CLI's contract."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.answers import MAX_PAGE, BodyCursor, BodyLimit


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


Text = Annotated[str, Field(max_length=255)]
LongText = Annotated[str, Field(max_length=10_240)]
"""As much as an LT or ST of DICOM may have, or more."""
Texts = Annotated[list[Text], Field(max_length=5000)]
"""With the numbers of a selection no more values than a statement of PostgreSQL may have (65,535)."""


class SelectionBody(_Body):
    """SELECT: several criteria are combined by AND, several values of one by OR."""

    study: Texts = []
    series: Texts = []
    sop: Texts = []
    instance: list[Annotated[int, Field(ge=1, lt=1 << 62)]] = Field(default=[], max_length=25_000)
    patient_id: Texts = []
    accession: Texts = []
    date_range: Text = ""
    modality: Texts = []
    calling_ae: Texts = []
    all: bool = False
    not_on_disc: bool = False

    def given(self) -> dict[str, Any]:
        return {key: value for key, value in self.model_dump().items() if value}


class OptionsBody(_Body):
    """How discs are made; what is left out is taken from the settings."""

    profile: Text | None = None
    medium: Text | None = None
    capacity_sectors: int | None = Field(default=None, ge=1, lt=1 << 40)
    burner: Text | None = None
    copies: int | None = Field(default=None, ge=1, le=99)
    priority: Text | None = None
    patients_per_disc: Text | None = None
    conflicts: Text | None = None
    skip_refused: bool | None = None
    compress: Text | None = None
    allow_lossy: bool | None = None
    coerce: list[dict[str, Any]] | None = Field(default=None, max_length=1000)
    coerce_catalogue: bool | None = None
    iod: Text | None = None
    protect: Text | None = None
    protect_percent: float | None = Field(default=None, ge=3.3, le=200)
    allow_splitting: bool | None = None
    file_set_prefix: str | None = Field(default=None, pattern=r"^[A-Z0-9_]{0,9}$")
    purpose: Text | None = None
    pull_from: str | None = Field(default=None, max_length=32)
    label_text: LongText | None = None
    label_using_information_extracted_from_instances: bool | None = None
    label_style_selection: Text | None = None
    media_disposition: LongText | None = None
    barcode_value: Text | None = None
    barcode_symbology: Text | None = None

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class PlanBody(_Body):
    selection: SelectionBody
    options: OptionsBody = OptionsBody()


class JobBody(_Body):
    """Either a selection or a plan."""

    selection: SelectionBody | None = None
    plan: Text | None = None
    options: OptionsBody = OptionsBody()
    idempotency_key: str | None = Field(default=None, max_length=255)


class FindBody(_Body):
    """Criteria of a search in the catalogue; in a body, so that no patient's name stands in a URL."""

    patient_id: Text = ""
    patient_name: Text = ""
    study: Text = ""
    accession: Text = ""
    series: Text = ""
    sop: Text = ""
    modality: Text = ""
    date_range: Text = ""
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

    disc: Text
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
    retrieve: Text = "move"
    tls: bool = False


class PullBody(_Body):
    """What to fetch; in a body, so that no patient's ID stands in a URL."""

    study: Texts = []
    patient_id: Texts = []
    accession: Texts = []
    date_range: Text = ""
    by: Text | None = None


class SendBody(_Body):
    selection: SelectionBody
    commit: bool = False
