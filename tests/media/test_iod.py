"""The IOD check finds what is missing or empty, nested and conditional, in bounded time, and says it briefly."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from media import iod, iodtables
from media.iod import Finding, IodReport, Level, check_instance
from media.iodsummary import group
from media.problems import NotDicom

CT, STRUCTURES, DOSE, PLAN, MR = "CT_small.dcm", "rtstruct.dcm", "rtdose.dcm", "rtplan.dcm", "MR_small.dcm"


def packaged(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def load(name: str) -> Dataset:
    dataset = pydicom.dcmread(packaged(name), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset


def checked(dataset: Dataset, folder: Path, level: str = "report", **options: Any) -> IodReport:
    path = folder / "instance.dcm"
    dataset.save_as(path, enforce_file_format=True, **options)
    return check_instance(path, level)


def short(report: IodReport) -> set[tuple[str, str, str]]:
    return {(finding.keyword, finding.what, finding.severity) for finding in report.findings}


def new(report: IodReport, name: str) -> set[tuple[str, str, str]]:
    """What the packaged file itself did not have."""
    return short(report) - short(check_instance(packaged(name)))


@pytest.mark.parametrize("name", [CT, MR, PLAN])
def test_good_instances_have_no_error(name: str) -> None:
    assert check_instance(packaged(name)).errors == ()


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        (CT, "PixelSpacing"), (CT, "ImagePositionPatient"), (CT, "ImageOrientationPatient"), (CT, "RescaleSlope"),
        (CT, "FrameOfReferenceUID"), (CT, "Rows"), (CT, "Modality"), (CT, "ImageType"),
        (MR, "ScanningSequence"), (STRUCTURES, "StructureSetLabel"), (DOSE, "DoseUnits"), (DOSE, "DoseType"),
        (DOSE, "DoseSummationType"), (DOSE, "Rows"), (PLAN, "RTPlanLabel"), (PLAN, "RTPlanGeometry"),
    ],
)  # fmt: skip
def test_type_1_must_have_a_value(tmp_path: Path, name: str, keyword: str) -> None:
    dataset = load(name)
    dataset[keyword].value = None
    assert new(checked(dataset, tmp_path), name) >= {(keyword, "empty", "error")}
    del dataset[keyword]
    assert new(checked(dataset, tmp_path), name) >= {(keyword, "missing", "error")}


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        (CT, "SliceThickness"), (CT, "KVP"), (CT, "PatientBirthDate"), (CT, "StudyID"), (MR, "EchoTime"),
        (STRUCTURES, "StructureSetDate"), (PLAN, "RTPlanDate"), (DOSE, "PatientSex"),
    ],
)  # fmt: skip
def test_type_2_may_be_empty_but_not_missing(tmp_path: Path, name: str, keyword: str) -> None:
    dataset = load(name)
    dataset[keyword].value = None
    assert new(checked(dataset, tmp_path), name) == set()
    del dataset[keyword]
    assert new(checked(dataset, tmp_path), name) == {(keyword, "missing", "error")}


def test_values_of_nothing_but_padding_are_empty(tmp_path: Path) -> None:
    dataset = load(CT)
    dataset.ImageType = ["", "", ""]
    dataset.Modality = "  "
    assert new(checked(dataset, tmp_path), CT) == {("ImageType", "empty", "error"), ("Modality", "empty", "error")}


def test_zero_is_a_value(tmp_path: Path) -> None:
    dataset = load(CT)
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = "0"
    assert new(checked(dataset, tmp_path), CT) == set()


@pytest.mark.parametrize(
    ("name", "set_to", "removed"),
    [
        (CT, {}, "PatientPosition"),
        (CT, {"PatientIdentityRemoved": "YES"}, "DeidentificationMethod"),
        (CT, {"SamplesPerPixel": 3}, "PlanarConfiguration"),
        (CT, {"PhotometricInterpretation": "PALETTE COLOR"}, "RedPaletteColorLookupTableDescriptor"),
        (MR, {"ScanningSequence": "SE"}, "RepetitionTime"),
        (MR, {"ScanningSequence": ["SE", "IR"]}, "InversionTime"),
        (MR, {"ScanOptions": "CG"}, "TriggerTime"),
        (DOSE, {}, "DoseGridScaling"),
        (DOSE, {}, "GridFrameOffsetVector"),
        (DOSE, {"DoseSummationType": "PLAN"}, "ReferencedRTPlanSequence"),
        (DOSE, {}, "NumberOfFrames"),
        (PLAN, {"RTPlanGeometry": "PATIENT"}, "ReferencedStructureSetSequence"),
        (PLAN, {}, "BeamSequence"),
    ],
)
def test_conditions(tmp_path: Path, name: str, set_to: dict[str, Any], removed: str) -> None:
    dataset = load(name)
    for keyword, value in set_to.items():
        setattr(dataset, keyword, value)
    if removed in dataset:
        del dataset[removed]
    found = new(checked(dataset, tmp_path), name)
    if removed == "NumberOfFrames":
        assert removed not in {keyword for keyword, _, _ in found}, "Multi-frame is not demanded of one frame"
    else:
        assert (removed, "missing", "error") in found


@pytest.mark.parametrize(
    ("name", "changes", "keyword"),
    [
        (CT, {"PatientIdentityRemoved": "NO"}, "DeidentificationMethod"),
        (MR, {"ScanningSequence": "EP", "SequenceVariant": "NONE"}, "RepetitionTime"),
        (PLAN, {"RTPlanGeometry": "TREATMENT_DEVICE"}, "ReferencedStructureSetSequence"),
        (DOSE, {"DoseSummationType": "RECORD"}, "ReferencedRTPlanSequence"),
    ],
)
def test_conditions_that_do_not_hold(tmp_path: Path, name: str, changes: dict[str, Any], keyword: str) -> None:
    dataset = load(name)
    for changed, value in changes.items():
        setattr(dataset, changed, value)
    if keyword in dataset:
        del dataset[keyword]
    assert keyword not in {found for found, _, _ in new(checked(dataset, tmp_path), name)}


def test_type_1c_without_a_decidable_condition_may_lack_but_not_be_empty(tmp_path: Path) -> None:
    dataset = load(CT)
    dataset.AnatomicalOrientationType = None
    assert new(checked(dataset, tmp_path), CT) == {("AnatomicalOrientationType", "empty", "error")}


def test_a_dose_without_pixels_needs_no_image_modules(tmp_path: Path) -> None:
    dataset = load(DOSE)
    for keyword in ("PixelData", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "DoseGridScaling",
                    "ImageOrientationPatient", "BitsAllocated", "GridFrameOffsetVector", "SliceThickness",
                    "SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation",
                    "NumberOfFrames", "FrameIncrementPointer", "InstanceNumber"):  # fmt: skip
        if keyword in dataset:
            del dataset[keyword]
    assert new(checked(dataset, tmp_path), DOSE) == set()


def test_nested_items_are_checked_each_and_counted(tmp_path: Path) -> None:
    dataset = load(PLAN)
    points = dataset.BeamSequence[0].ControlPointSequence
    for point in points:
        del point.ControlPointIndex
    del dataset.BeamSequence[0].BeamType
    report = checked(dataset, tmp_path)
    by_keyword = {finding.keyword: finding for finding in report.errors}
    assert by_keyword["BeamType"].path == "(300A,00B0)[1]/(300A,00C4)"
    index = by_keyword["ControlPointIndex"]
    assert (index.path, index.count) == ("(300A,00B0)[1]/(300A,0111)[1]/(300A,0112)", len(points))
    assert "C.8.8.14" in index.clause and f"{len(points)} times" in index.text


def test_the_first_control_point_has_the_geometry(tmp_path: Path) -> None:
    dataset = load(PLAN)
    for point in dataset.BeamSequence[0].ControlPointSequence:
        if "GantryAngle" in point:
            del point.GantryAngle
    found = [finding for finding in checked(dataset, tmp_path).findings if finding.keyword == "GantryAngle"]
    assert [(finding.count, finding.type) for finding in found] == [(1, "1C")]


def test_what_cerr_asks_beyond_the_standard_is_a_warning(tmp_path: Path) -> None:
    dataset = load(STRUCTURES)
    del dataset.ROIContourSequence
    del dataset.RTROIObservationsSequence
    dataset.StructureSetROISequence = Sequence([])
    report = checked(dataset, tmp_path, "strict")
    asked = {finding.keyword: finding for finding in report.findings if finding.clause.startswith("CERR_DICOM 1.0")}
    assert {"ROIContourSequence", "StructureSetROISequence", "RTROIObservationsSequence"} <= asked.keys()
    assert {finding.severity for finding in asked.values()} == {"warning"}


def test_a_standard_finding_says_who_else_asks(tmp_path: Path) -> None:
    dataset = load(CT)
    del dataset.PixelSpacing
    (finding,) = checked(dataset, tmp_path).errors
    assert (finding.clause, finding.asked_by) == ("PS3.3 C.7.6.2", ("CERR_DICOM 1.0 Table C.7-10",))


def test_contour_types_and_other_values(tmp_path: Path) -> None:
    dataset = load(STRUCTURES)
    dataset.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "SPLINE\x1b[31m"
    (finding,) = [each for each in checked(dataset, tmp_path).findings if each.what == "value"]
    assert finding.keyword == "ContourGeometricType" and finding.severity == "error"
    assert finding.value.startswith("SPLINE") and finding.value.isprintable()
    dataset = load(CT)
    dataset.BitsAllocated = 32
    assert ("BitsAllocated", "value", "error") in short(checked(dataset, tmp_path))


def test_levels(tmp_path: Path) -> None:
    dataset = load(CT)
    del dataset.PixelSpacing
    assert checked(dataset, tmp_path, "strict").refused
    assert not checked(dataset, tmp_path, "report").refused
    assert check_instance(tmp_path / "is not there", Level.OFF).findings == ()
    assert not check_instance(packaged(CT), "strict").refused
    with pytest.raises(ValueError):
        check_instance(packaged(CT), "lax")


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
@pytest.mark.parametrize("name", [DOSE, PLAN, STRUCTURES])
def test_every_encoding_gives_the_same(tmp_path: Path, name: str, syntax: pydicom.uid.UID) -> None:
    dataset = Dataset(load(name))
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    dataset.file_meta = load(name).file_meta
    dataset.file_meta.TransferSyntaxUID = syntax
    for sequence in dataset:
        if sequence.VR == "SQ":
            for item in sequence.value:
                item.is_undefined_length_sequence_item = True
            sequence.is_undefined_length = True
    options = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
    assert checked(dataset, tmp_path, **options).findings == check_instance(packaged(name)).findings


def test_pixel_data_is_not_read(tmp_path: Path) -> None:
    """2 GB of it that are cut off make no difference: that they are there is for others to find out."""
    data = packaged(CT).read_bytes()
    at = data.rindex(b"\xe0\x7f\x10\x00OW\0\0") + 8
    path = tmp_path / "cut.dcm"
    path.write_bytes(data[:at] + (2_000_000_000).to_bytes(4, "little"))
    assert check_instance(path).errors == ()


@pytest.mark.parametrize("cut", [0, 1, 300, 400, 1000, 2000, 3001])
def test_cut_off_data_sets_are_refused_by_name(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.dcm"
    path.write_bytes(packaged(PLAN).read_bytes()[:cut])
    try:
        check_instance(path)
    except NotDicom as error:
        assert "cut.dcm" in str(error)
    else:
        assert cut > 300, "cut between two elements: findings tell what is missing"


def test_flipped_bytes_never_give_another_error(tmp_path: Path) -> None:
    data = packaged(PLAN).read_bytes()
    path = tmp_path / "flipped.dcm"
    for at in range(140, len(data), 7):
        path.write_bytes(data[:at] + bytes((data[at] ^ 0xFF,)) + data[at + 1 :])
        with contextlib.suppress(NotDicom):
            json.dumps(check_instance(path).as_json())


def test_endless_items_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iod, "_MOST_ELEMENTS", 1000)
    dataset = load(STRUCTURES)
    item = Dataset()
    item.ROINumber = 1
    dataset.StructureSetROISequence = Sequence([item] * 5000)
    report = checked(dataset, tmp_path)
    assert len(report.notes) == 1 and "first 1000 elements" in report.notes[0]
    assert all(finding.count <= 1000 for finding in report.findings)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    dataset = load(CT)
    inner = Dataset()
    for _ in range(200):
        outer = Dataset()
        outer.ContentSequence = Sequence([inner])
        inner = outer
    dataset.RequestAttributesSequence = Sequence([inner])
    path = tmp_path / "deep.dcm"
    dataset["RequestAttributesSequence"].is_undefined_length = True
    dataset.save_as(path)
    try:
        check_instance(path)
    except NotDicom as error:
        assert "nested" in str(error)


def test_sop_classes_without_tables(tmp_path: Path) -> None:
    dataset = load(CT)
    dataset.SOPClassUID = "1.2.3.4"
    report = checked(dataset, tmp_path, "strict")
    assert (report.iod, report.findings, report.refused) == (None, (), False) and "1.2.3.4" in report.notes[0]


def test_hostile_identifiers_cannot_write_to_a_terminal(tmp_path: Path) -> None:
    data = packaged(CT).read_bytes()
    uid = load(CT).SOPInstanceUID.encode()
    path = tmp_path / "hostile.dcm"
    path.write_bytes(data.replace(uid, b"\x1b[31m\n" + uid[6:]))
    assert check_instance(path).sop_instance_uid.isprintable()


def test_a_module_of_usage_u_counts_when_it_is_there(tmp_path: Path) -> None:
    dataset = load(CT)
    dataset.ClinicalTrialSubjectID = "7"
    dataset.ClinicalTrialSponsorName = None
    report = checked(dataset, tmp_path)
    assert ("ClinicalTrialSponsorName", "empty", "warning") in new(report, CT)
    assert ("ClinicalTrialProtocolID", "missing", "warning") in new(report, CT)


def test_functional_groups_may_stand_in_either_sequence(tmp_path: Path) -> None:
    key = iodtables.iod_key("1.2.840.10008.5.1.4.1.1.2.1")
    assert key == "enhanced-ct-image"
    root = iodtables.iod(key).root
    shared = root.children[0x52009229]
    measures = shared.rules.get(0x00289110, [])
    assert all(rule.may_lack for rule in measures)
    spacing = shared.children[0x00289110].rules[0x00280030]
    assert any(rule.conditions == () for rule in spacing)


def test_content_items_are_asked_by_their_value_type(tmp_path: Path) -> None:
    dataset = load("reportsi.dcm")
    assert check_instance(packaged("reportsi.dcm")).errors == ()
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "NUM"
    dataset.ContentSequence = Sequence([item])
    assert ("MeasuredValueSequence", "missing", "error") in short(checked(dataset, tmp_path))
    assert "ConceptCodeSequence" not in {found for found, _, _ in short(checked(dataset, tmp_path))}


@pytest.mark.parametrize("key", ["ct-image", "mr-image", "rt-structure-set", "rt-dose", "rt-plan"])
def test_rows_meet_attributes_that_there_are(key: str) -> None:
    """A misspelt row would silently ask nothing."""
    tables = iodtables.iod(key)
    modules = {module.key for module in tables.modules}
    for row in iodtables._rows()["condition"]:
        if key in row.get("iods", (key,)) and row["module"] in modules:
            for attribute in row["attributes"]:
                *path, tag = iodtables._path(attribute)
                rules = iodtables._node(tables, path).rules.get(tag, [])
                assert any(rule.conditions and rule.module.key == row["module"] for rule in rules), (key, attribute)


def test_every_row_names_what_there_is() -> None:
    known = set(iodtables._json("iod_module_map.json"))
    modules = set(iodtables._json("module_attribute_map.json"))
    rows = iodtables._rows()
    assert rows["modules"].keys() <= modules | {"multi-frame-functional-groups"}
    for kind in ("presence", "included", "condition", "value", "requirement"):
        for row in rows[kind]:
            assert set(row.get("iods", ())) <= known, row
            assert {row["module"]} <= modules if "module" in row else set(row["modules"]) <= modules, row
            iodtables._condition(row)


@pytest.mark.parametrize(
    "key", ["enhanced-mr-image", "segmentation", "comprehensive-sr", "ultrasound-image", "nm-image"]
)
def test_other_iods_compile(key: str) -> None:
    available = set(iodtables.sop_classes().values())
    if key not in available:
        key = sorted(available)[0]
    tables = iodtables.iod(key)
    assert tables.root.rules and tables.root.known


def test_reports_go_through_json_and_processes() -> None:
    report = check_instance(packaged(STRUCTURES))
    assert pickle.loads(pickle.dumps(report)) == report
    document = json.loads(json.dumps(report.as_json()))
    assert document["iod"] == "rt structure set" and document["level"] == "report"
    assert {"path", "keyword", "module", "usage", "type", "what", "severity", "clause", "text"} <= document["findings"][
        0
    ].keys()


def _finding(number: int, keyword: str = "PixelSpacing", severity: str = "error") -> Finding:
    return Finding((number,), "(0028,0030)", keyword, "Image Plane", "M", "1", "missing", severity, "PS3.3 C.7.6.2")


def test_ten_thousand_findings_are_a_few_lines() -> None:
    reports = (
        IodReport(Level.STRICT, "1.2", f"1.2.{n}", "ct image", (_finding(1), _finding(2, "SliceThickness")))
        for n in range(5000)
    )
    summary = group(reports)
    assert (summary.checked, summary.sound, summary.refused, len(summary.groups)) == (5000, 0, 5000, 2)
    lines = summary.lines()
    assert len(lines) == 3 and "5000 instances" in lines[1] and "as 1.2.0" in lines[1]
    assert json.loads(json.dumps(summary.as_json()))["groups"][0]["instances"] == 5000


def test_many_kinds_are_merged_by_module() -> None:
    report = IodReport(Level.REPORT, "1", "1.9", "ct image", tuple(_finding(n, f"K{n}") for n in range(50)))
    lines = group([report] * 3).lines(10)
    assert len(lines) == 2 and "50 attributes missing (K0, K1, K2, ...)" in lines[1]


def test_unreadable_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(NotDicom, match="is empty") as caught:
        check_instance(tmp_path / "empty")
    unread = IodReport(Level.REPORT, "", "", None, (), (str(caught.value),))
    summary = group([unread, check_instance(packaged(CT))])
    assert (summary.checked, summary.unchecked, summary.sound) == (2, 1, 1)
    assert any("is empty" in line for line in summary.lines())


def test_a_ct_takes_a_few_milliseconds() -> None:
    path = packaged(CT)
    check_instance(path)
    best = min(_timed(path) for _ in range(20))
    assert best < 0.05, f"{best * 1000:.1f} ms"


def _timed(path: Path) -> float:
    start = time.thread_time()
    check_instance(path)
    return time.thread_time() - start


def test_importing_reads_no_tables() -> None:
    code = "import sys, media.iod, media.iodsummary; print({'highdicom', 'numpy', 'pydicom'} & set(sys.modules))"
    root = Path(iod.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
