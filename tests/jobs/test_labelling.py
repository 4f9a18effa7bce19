"""Labels of planned volumes and of discs: facts from the plan's rows, the request's wishes, the site's style."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from jobs import labelling
from jobs.assemble import volume_image
from jobs.labelling import DiscLabel, label_of_disc
from jobs.options import OptionsError, RequestOptions
from jobs.planning import make_plan
from media.labelfacts import LabelFacts
from store.models import Derived
from store.models_jobs import Disc, Plan, VolumeInstance
from store.models_jobs import Job as JobRow
from store.models_jobs import Volume as VolumeRow
from store.selection import Selection
from tests.jobs.conftest import House


def planned(house: House, **options: Any) -> list[int]:
    """Volumes of a plan of all that was received."""
    job_id = house.order(Selection(all=True), **options)
    with house.db.read() as session:
        request_id = session.get_one(JobRow, job_id).request_id
    plan_id = make_plan(house.ctx, request_id)
    with house.db.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(plan_id=plan_id))
        return list(session.scalars(select(VolumeRow.id).where(VolumeRow.plan_id == plan_id)))


def facts(house: House, volume_id: int) -> LabelFacts:
    with house.db.read() as session:
        return labelling.facts_of(session, house.settings, session.get_one(VolumeRow, volume_id))


def disc_of(house: House, volume_id: int, copy: int = 1) -> tuple[Disc, VolumeRow]:
    from store import discs

    with house.db.begin() as session:
        job = session.scalars(select(JobRow).join(Plan, Plan.id == JobRow.plan_id)).one()
        disc = discs.new_disc(job, volume_id, copy, attempt=1)
        session.add(disc)
        session.flush()
        session.expunge(disc)
        return disc, session.get_one(VolumeRow, volume_id)


def label(house: House, volume_id: int, copy: int = 1) -> DiscLabel:
    return label_of_disc(house.ctx, *disc_of(house, volume_id, copy))


def test_facts_of_a_volume(house: House) -> None:
    house.receive(3)
    (volume_id,) = planned(house)
    found = facts(house, volume_id)
    (patient,) = found.patients
    (study,) = patient.studies
    assert patient.patient_name
    assert patient.patient_id
    assert study.modalities == ("CT",)
    assert (found.volume, found.volumes, found.copy) == (1, 1, 0)
    assert found.file_set_id == volume_image(house.ctx, volume_id).volume_id
    assert found.profile == "STD-GEN-CD"


def test_the_request_s_wishes(house: House) -> None:
    house.receive(1)
    wishes = {
        "label_text": "Do not bend", "barcode_value": "12345670", "barcode_symbology": "Code 39",
        "media_disposition": "Ward 3", "label_using_information_extracted_from_instances": False,
    }  # fmt: skip
    (volume_id,) = planned(house, **wishes)
    found = facts(house, volume_id)
    assert (found.label_text, found.barcode_value, found.disposition) == ("Do not bend", "12345670", "Ward 3")
    assert not found.extracted
    fields = label(house, volume_id).fields
    assert (fields["barcode_symbology"], fields["patient_name"]) == ("CODE39", "")


@pytest.mark.parametrize(
    ("option", "value"),
    [("barcode_symbology", "NONSENSE"), ("barcode_value", "1" * 1025), ("label_text", "x" * 10_241)],
)
def test_wishes_that_cannot_be(house: House, option: str, value: str) -> None:
    with pytest.raises(OptionsError, match=option):
        RequestOptions.from_settings(house.settings, {option: value})


def test_options_of_requests_of_old_versions(house: House) -> None:
    old = RequestOptions.from_settings(house.settings, {}).to_json()
    for name in ("label_text", "barcode_value", "barcode_symbology", "label_style_selection", "media_disposition"):
        del old[name]
    assert RequestOptions.from_json(old).label_text == ""


def test_what_a_burner_gets(house: House, tmp_path: Path) -> None:
    house.receive(2)
    (volume_id,) = planned(house, copies=2)
    given = label(house, volume_id, copy=2)
    assert given.fields["copy"] == "2"
    assert given.fields["disc"].startswith("D")
    assert given.fields["job"] == "J1"
    for name, start in (("label.png", b"\x89PNG"), ("label.pdf", b"%PDF"), ("label.PNG", b"\x89PNG")):
        path = tmp_path / name
        given.write(path, "")
        assert path.read_bytes().startswith(start)
        again = path.read_bytes()
        given.write(path, "generic")
        assert path.read_bytes() == again  # the site's own printer is this one
    with pytest.raises(OSError, match="no label printer 'toaster'"):
        given.write(tmp_path / "x.png", "toaster")
    with pytest.raises(OSError, match="drawn as 'gif'"):
        given.write(tmp_path / "x.gif", "")


def test_one_copy_has_no_number(house: House) -> None:
    house.receive(1)
    (volume_id,) = planned(house)
    assert label(house, volume_id).fields["copy"] == ""


def test_corrected_values_count(house: House) -> None:
    """What stands in the instances on the disc, not what was received."""
    house.receive(3)
    (volume_id,) = planned(house, compress="none")
    with house.db.begin() as session:
        first = session.scalars(select(VolumeInstance).where(VolumeInstance.volume_id == volume_id)).all()
        derived = Derived(
            source_digest="d", sop_instance_uid="1.2.3", recipe="edit/1+0", path="x", size=1, sha256="s",
            transfer_syntax_uid="1.2.840.10008.1.2.1", changes=[], created_at=session.get_one(Plan, 1).created_at,
            facts={"patient_id": "NEW-ID", "patient_name": "Corrected^Name", "issuer_of_patient_id": "",
                   "patient_birth_date": "19991231", "study_description": "Corrected"},
        )  # fmt: skip
        session.add(derived)
        session.flush()
        for row in first:
            row.derived_id = derived.id
    (patient,) = facts(house, volume_id).patients
    assert (patient.patient_id, patient.patient_name) == ("NEW-ID", "Corrected^Name")
    assert [study.study_description for study in patient.studies] == ["Corrected"]
    with house.db.begin() as session:
        session.get_one(VolumeInstance, (volume_id, 1)).derived_id = None
    assert len(facts(house, volume_id).patients) == 2


def test_a_style_that_is_not_ours_is_told_and_never_a_path(house: House, tmp_path: Path) -> None:
    own = tmp_path / "evil.toml"
    own.write_text('[[rows]]\nzone = "top"\ntext = "evil"\n')
    house.receive(1)
    (volume_id,) = planned(house, label_style_selection=str(own)[-64:])
    with house.db.read() as session:
        volume = session.get_one(VolumeRow, volume_id)
        drawn = labelling.draw(session, house.settings, facts(house, volume_id), volume)
    assert "evil" not in "".join(drawn.lines)
    assert any("label style" in notice for notice in drawn.notices)


def test_a_style_of_ours(house: House) -> None:
    house.receive(1)
    (volume_id,) = planned(house, label_style_selection="Small")
    with house.db.read() as session:
        style, notices = labelling.style_of(session, house.settings, session.get_one(VolumeRow, volume_id))
    assert (style.layout, notices) == ("small", ())


def test_a_wrong_setting_of_the_label_stops_no_plan(house: House) -> None:
    house.receive(1)
    planned(house)
    wrong = house.settings.model_copy(update={"label": house.settings.label.model_copy(update={"printer": "toaster"})})
    from jobs.plandocument import plan_document

    with house.db.read() as session:
        document = labelling.with_labels(session, wrong, plan_document(session, 1))
    assert "toaster" in document["volumes"][0]["label"]["notices"][0]


def test_privacy_of_the_site(house: House) -> None:
    house.receive(1)
    (volume_id,) = planned(house)
    shown = facts(house, volume_id)
    name = shown.patients[0].patient_name.split("^")[0]
    from media.labelfacts import merge_fields

    assert name in str(merge_fields(shown))
    assert name not in str(merge_fields(replace(shown, shown="id")))
