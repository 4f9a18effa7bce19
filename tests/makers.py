"""Makers of small DICOM instances, shared by all tests: same arguments, same bytes.

    made = make("CT", patient=PATIENTS["japanese"], seed=3, number=2)
    made.part10()              # a complete PS3.10 file
    made.write(folder)         # the same, as a file
    study("CT", 4, seed=1)     # four instances of one series

Each kind is a storage SOP class with the modules that its IOD demands (``dciodvfy`` finds no error in those of
``KINDS``), so that whatever is refused in a test is refused for the reason which the test put there.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from media.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

EXPLICIT_LE = str(ExplicitVRLittleEndian)
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


@dataclass(frozen=True)
class Patient:
    """A patient as one hospital writes him: the name may have several component groups."""

    patient_id: str = "PAT-0001"
    name: str = "Doe^Jane^A"
    birth_date: str = "19610203"
    sex: str = "F"
    charset: str = ""
    """Specific Character Set (0008,0005), with backslashes where it has several values."""


PATIENTS = {
    "ascii": Patient(),
    "ascii2": Patient("PAT-0002", "Roe^Richard", "19450708", "M"),
    "german": Patient("DE-17", "Äneas^Rüdiger", "19500101", "M", "ISO_IR 100"),
    "greek": Patient("GR-9", "Διονυσιος^Σολωμος", "19480408", "M", "ISO_IR 126"),
    "cyrillic": Patient("RU-5", "Чехов^Антон^Павлович", "18600129", "M", "ISO_IR 144"),
    "arabic": Patient("SA-3", "قباني^لنزار", "19230321", "M", "ISO_IR 127"),
    "hebrew": Patient("IL-3", "שרון^דבורה", "19330321", "F", "ISO_IR 138"),
    "japanese": Patient("JP-1", "Yamada^Tarou=山田^太郎=やまだ^たろう", "19700101", "M", "\\ISO 2022 IR 87"),
    "japanese_kana": Patient(
        "JP-2", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "19700102", "M", "ISO 2022 IR 13\\ISO 2022 IR 87"
    ),
    "korean": Patient("KR-1", "Hong^Gildong=洪^吉洞=홍^길동", "19800909", "M", "\\ISO 2022 IR 149"),
    "chinese": Patient("CN-1", "Zhang^XiaoDong=张^小东", "19850505", "M", "GB18030"),
    "unicode": Patient("UN-1", "Wang^XiaoDong=王^小東", "19901231", "F", "ISO_IR 192"),
}


def uid(*parts: object) -> str:
    """A valid UID under 2.25 that depends on nothing but ``parts``."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


@dataclass(frozen=True)
class Made:
    """A made instance: its identity, its encoded data set, and the pydicom Dataset it came from."""

    kind: str
    dataset: Dataset
    transfer_syntax_uid: str
    encoded: bytes = field(repr=False)
    """The data set without preamble and file meta information."""

    @property
    def sop_class_uid(self) -> str:
        return str(self.dataset.SOPClassUID)

    @property
    def sop_instance_uid(self) -> str:
        return str(self.dataset.SOPInstanceUID)

    @property
    def study_instance_uid(self) -> str:
        return str(self.dataset.get("StudyInstanceUID", ""))

    @property
    def series_instance_uid(self) -> str:
        return str(self.dataset.get("SeriesInstanceUID", ""))

    @property
    def record_type(self) -> str:
        """The directory record type that PS3.3 Annex F has for it."""
        return _KIND[self.kind].record_type

    def meta(self) -> bytes:
        """Preamble, prefix and group 2 as PS3.10 7.1 wants them."""
        meta = Dataset()
        meta.FileMetaInformationVersion = b"\x00\x01"
        meta.MediaStorageSOPClassUID = self.sop_class_uid
        meta.MediaStorageSOPInstanceUID = self.sop_instance_uid
        meta.TransferSyntaxUID = self.transfer_syntax_uid
        meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
        meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        meta.FileMetaInformationGroupLength = 0
        out = BytesIO()
        write_file_meta_info(out, meta)  # type: ignore[arg-type]
        return b"\0" * 128 + b"DICM" + out.getvalue()

    def part10(self) -> bytes:
        return self.meta() + self.encoded

    def write(self, target: Path) -> Path:
        """Write the file as ``target``, or into that folder under its SOP Instance UID; returns where it is."""
        if target.is_dir():
            target = target / f"{self.sop_instance_uid}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.part10())
        return target


def make(
    kind: str = "CT",
    *,
    seed: int = 0,
    patient: Patient = PATIENTS["ascii"],
    study: int = 1,
    series: int = 1,
    number: int = 1,
    size: int | None = None,
    transfer_syntax_uid: str = EXPLICIT_LE,
    study_date: str = "20240229",
    change: Callable[[Dataset], None] | None = None,
    **values: Any,
) -> Made:
    """One instance of ``kind``. ``seed``, the patient's ID, ``study``, ``series`` and ``number`` make its UIDs.

    ``size``: about this many bytes of pixel data, samples or document, where the kind has any. ``change`` edits the
    data set before it is encoded; ``values`` are attributes by keyword, ``None`` to leave one out.
    """
    dice = random.Random(f"{seed}/{kind}/{patient.patient_id}/{study}/{series}/{number}")
    ds = Dataset()
    _common(ds, kind, seed, patient, study, series, number, study_date)
    _KIND[kind].build(ds, dice, size)
    ds.SOPClassUID = _KIND[kind].sop_class_uid
    for keyword, value in values.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    if change:
        change(ds)
    return Made(kind, ds, transfer_syntax_uid, encode(ds, transfer_syntax_uid))


def study(kind: str = "CT", count: int = 3, **options: Any) -> Iterator[Made]:
    """``count`` instances of one series."""
    return (make(kind, number=n, **options) for n in range(1, count + 1))


def encode(ds: Dataset, transfer_syntax_uid: str = EXPLICIT_LE) -> bytes:
    """The data set in a transfer syntax; pixel data of a compressed one must be encapsulated already."""
    import zlib

    implicit = transfer_syntax_uid == IMPLICIT_LE
    little = transfer_syntax_uid != EXPLICIT_BE
    out = _buffer(little, implicit)
    if transfer_syntax_uid not in (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED) and "PixelData" in ds:
        ds["PixelData"].is_undefined_length = True
    write_dataset(out, ds, parent_encoding="iso8859")
    data: bytes = out.parent.getvalue()
    if transfer_syntax_uid == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = packer.compress(data) + packer.flush()
        data += b"\0" * (len(data) % 2)
    return data


def _buffer(little: bool, implicit: bool) -> Any:
    from pydicom.filebase import DicomBytesIO

    out = DicomBytesIO()
    out.is_little_endian = little
    out.is_implicit_VR = implicit
    return out


def _common(
    ds: Dataset, kind: str, seed: int, patient: Patient, study: int, series: int, number: int, date: str
) -> None:
    """Patient, General Study, General Series, General Equipment and SOP Common."""
    if patient.charset:
        ds.SpecificCharacterSet = patient.charset.split("\\") if "\\" in patient.charset else patient.charset
    who = (seed, patient.patient_id)
    ds.InstanceCreationDate, ds.InstanceCreationTime = date, "101500"
    ds.SOPInstanceUID = uid("instance", *who, kind, study, series, number)
    ds.StudyDate, ds.SeriesDate, ds.ContentDate = date, date, date
    ds.StudyTime, ds.SeriesTime, ds.ContentTime = "101112", "101213", f"1014{number % 60:02d}"
    ds.AccessionNumber = f"A{study:05d}"
    ds.Modality = _KIND[kind].modality
    ds.Manufacturer = "Makers Ltd"
    ds.InstitutionName = "St. Elsewhere"
    ds.ReferringPhysicianName = "Quincy^M"
    ds.StationName = "STATION1"
    ds.StudyDescription = f"Study {study}"
    ds.SeriesDescription = f"{kind} series {series}"
    ds.ManufacturerModelName = "Model T"
    ds.PatientName = patient.name
    ds.PatientID = patient.patient_id
    ds.PatientBirthDate = patient.birth_date
    ds.PatientSex = patient.sex
    ds.DeviceSerialNumber = "0815"
    ds.SoftwareVersions = "1.0"
    ds.StudyInstanceUID = uid("study", *who, study)
    ds.SeriesInstanceUID = uid("series", *who, kind, study, series)
    ds.StudyID = str(study)
    ds.SeriesNumber = series
    ds.InstanceNumber = number


def _pixels(
    ds: Dataset, dice: random.Random, size: int | None, *, bits: int = 16, samples: int = 1, frames: int = 0
) -> None:
    each = max(1, bits // 8) * samples * max(1, frames)
    side = 16 if size is None else max(1, int((size / each) ** 0.5))
    side += side % 2
    ds.SamplesPerPixel = samples
    ds.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    if samples == 3:
        ds.PlanarConfiguration = 0
    if frames:
        ds.NumberOfFrames = frames
    ds.Rows = ds.Columns = side
    ds.BitsAllocated = bits
    ds.BitsStored = 12 if bits == 16 else bits
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = 0
    raw = dice.randbytes(side * side * each)
    if bits == 16:
        raw = (int.from_bytes(raw, "big") & int.from_bytes(b"\xff\x0f" * (len(raw) // 2), "big")).to_bytes(
            len(raw), "big"
        )
    ds["PixelData"] = _element("PixelData", "OW" if bits == 16 else "OB", raw + b"\0" * (len(raw) % 2))


def _element(keyword: str, vr: str, value: Any) -> Any:
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import DataElement

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return DataElement(tag, vr, value)


def _frame_of_reference(ds: Dataset) -> None:
    ds.FrameOfReferenceUID = uid("frame", str(ds.StudyInstanceUID))
    ds.PositionReferenceIndicator = ""


def _plane(ds: Dataset) -> None:
    _frame_of_reference(ds)
    ds.PixelSpacing = [0.5, 0.5]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [0, 0, 5 * int(ds.InstanceNumber)]
    ds.SliceThickness = 5
    ds.PatientPosition = "HFS"


def _ct(ds: Dataset, dice: random.Random, size: int | None) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.BodyPartExamined = "CHEST"
    ds.AcquisitionNumber = 1
    ds.KVP = 120
    _plane(ds)
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    _pixels(ds, dice, size)


def _mr(ds: Dataset, dice: random.Random, size: int | None) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.BodyPartExamined = "BRAIN"
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "NONE", ""
    ds.MRAcquisitionType, ds.EchoTime, ds.EchoTrainLength, ds.RepetitionTime = "2D", 10, 1, 500
    _plane(ds)
    _pixels(ds, dice, size)


def _us(ds: Dataset, dice: random.Random, size: int | None) -> None:
    from pydicom.tag import Tag

    ds.ImageType = ["ORIGINAL", "PRIMARY", "ABDOMINAL", "0001"]
    ds.PatientOrientation = ds.Laterality = ""
    ds.LossyImageCompression = "00"
    ds.FrameTime = 40
    ds.FrameIncrementPointer = Tag(0x0018, 0x1063)
    _pixels(ds, dice, size, bits=8, samples=3, frames=3)


def _sc(ds: Dataset, dice: random.Random, size: int | None) -> None:
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType = "WSD"
    ds.PatientOrientation = ""
    ds.Laterality = ""
    _pixels(ds, dice, size, bits=8, samples=3)


def _sc_jpeg(ds: Dataset, dice: random.Random, size: int | None) -> None:
    """Looks compressed; nothing decodes it, but all that reads only headers is content."""
    _sc(ds, dice, size)
    ds.PhotometricInterpretation = "YBR_FULL_422"
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", 10
    ds.LossyImageCompressionMethod = "ISO_10918_1"
    ds.PixelData = encapsulate([b"\xff\xd8\xff\xe0" + dice.randbytes(size or 200) + b"\xff\xd9"])


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _reference(sop_class: str, instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
    return item


def _evidence(ds: Dataset, image: str) -> Sequence:
    series, top = Dataset(), Dataset()
    series.ReferencedSOPSequence = [_reference(_KIND["CT"].sop_class_uid, image)]
    series.SeriesInstanceUID = uid("other series", str(ds.StudyInstanceUID))
    top.ReferencedSeriesSequence = [series]
    top.StudyInstanceUID = ds.StudyInstanceUID
    return Sequence([top])


def _text_item(relation: str, name: Dataset, text: str) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relation, "TEXT"
    item.ConceptNameCodeSequence = [name]
    item.TextValue = text
    return item


def _document(ds: Dataset, title: Dataset) -> None:
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.ValueType = "CONTAINER"
    ds.ContinuityOfContent = "SEPARATE"
    ds.ConceptNameCodeSequence = [title]
    for keyword in ("SeriesDescription",):
        delattr(ds, keyword)


def _sr(ds: Dataset, dice: random.Random, size: int | None) -> None:
    _document(ds, _code("18782-3", "LN", "Radiology Study observation"))
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "VERIFIED"
    ds.PerformedProcedureCodeSequence = []
    observer = Dataset()
    observer.VerifyingOrganization = "St. Elsewhere"
    observer.VerificationDateTime = "20240301120000"
    observer.VerifyingObserverName = "Quincy^M"
    observer.VerifyingObserverIdentificationCodeSequence = []
    ds.VerifyingObserverSequence = [observer]
    language = Dataset()
    language.RelationshipType, language.ValueType = "HAS CONCEPT MOD", "CODE"
    language.ConceptNameCodeSequence = [_code("121049", "DCM", "Language of Content Item and Descendants")]
    language.ConceptCodeSequence = [_code("en-US", "RFC5646", "English (US)")]
    text = "Nothing abnormal seen. " * max(1, (size or 1) // 23)
    ds.ContentSequence = [language, _text_item("CONTAINS", _code("121071", "DCM", "Finding"), text[: size or 23])]


def _ko(ds: Dataset, dice: random.Random, size: int | None) -> None:
    _document(ds, _code("113000", "DCM", "Of Interest"))
    image = uid("picked", str(ds.StudyInstanceUID))
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    ds.ContentTemplateSequence = [template]
    picked = Dataset()
    picked.RelationshipType, picked.ValueType = "CONTAINS", "IMAGE"
    picked.ReferencedSOPSequence = [_reference(_KIND["CT"].sop_class_uid, image)]
    ds.ContentSequence = [
        _text_item("CONTAINS", _code("113012", "DCM", "Key Object Description"), "Look here"),
        picked,
    ]
    ds.CurrentRequestedProcedureEvidenceSequence = _evidence(ds, image)


def _pr(ds: Dataset, dice: random.Random, size: int | None) -> None:
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "GSPS1", "Bright", "Quincy^M"
    ds.PresentationCreationDate, ds.PresentationCreationTime = "20240229", "111500"
    image = _reference(_KIND["CT"].sop_class_uid, uid("shown", str(ds.StudyInstanceUID)))
    series = Dataset()
    series.ReferencedImageSequence = [image]
    series.SeriesInstanceUID = uid("other series", str(ds.StudyInstanceUID))
    ds.ReferencedSeriesSequence = [series]
    area = Dataset()
    area.ReferencedImageSequence = [image]
    area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [1, 1], [16, 16]
    area.PresentationSizeMode, area.PresentationPixelAspectRatio = "SCALE TO FIT", [1, 1]
    ds.DisplayedAreaSelectionSequence = [area]
    voi = Dataset()
    voi.ReferencedImageSequence = [image]
    voi.WindowCenter, voi.WindowWidth = 40, 400
    ds.SoftcopyVOILUTSequence = [voi]
    ds.PresentationLUTShape = "IDENTITY"
    ds.Laterality = ""


def _rtplan(ds: Dataset, dice: random.Random, size: int | None) -> None:
    ds.OperatorsName = ""
    ds.RTPlanLabel, ds.RTPlanName, ds.RTPlanDescription = "PLAN1", "Plan one", ""
    ds.RTPlanDate, ds.RTPlanTime = "20240229", "120000"
    ds.RTPlanGeometry = "TREATMENT_DEVICE"
    ds.ApprovalStatus = "UNAPPROVED"
    _frame_of_reference(ds)


def _rtdose(ds: Dataset, dice: random.Random, size: int | None) -> None:
    from pydicom.tag import Tag

    ds.OperatorsName = ""
    _plane(ds)
    del ds.PatientPosition
    _pixels(ds, dice, size, frames=2)
    ds.BitsStored, ds.HighBit = 16, 15
    ds.FrameIncrementPointer = Tag(0x3004, 0x000C)
    ds.GridFrameOffsetVector = [0, 5]
    ds.DoseUnits, ds.DoseType, ds.DoseSummationType, ds.DoseGridScaling = "GY", "PHYSICAL", "PLAN", 0.001
    ds.DoseComment = "whole plan"
    ds.ReferencedRTPlanSequence = [_reference(_KIND["RTPLAN"].sop_class_uid, uid("plan", str(ds.StudyInstanceUID)))]


def _rtstruct(ds: Dataset, dice: random.Random, size: int | None) -> None:
    ds.OperatorsName = ""
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = "STRUCT1", "20240229", "130000"
    ds.ApprovalStatus = "UNAPPROVED"
    _frame_of_reference(ds)
    roi, contour, observation = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = 1, "Lung", "MANUAL"
    roi.ReferencedFrameOfReferenceUID = ds.FrameOfReferenceUID
    contour.ROIDisplayColor, contour.ReferencedROINumber = [255, 0, 0], 1
    observation.ObservationNumber, observation.ReferencedROINumber = 1, 1
    observation.RTROIInterpretedType, observation.ROIInterpreter = "ORGAN", ""
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [roi], [contour], [observation]


def _ecg(ds: Dataset, dice: random.Random, size: int | None) -> None:
    samples = max(10, (size or 0) // 4)
    ds.AcquisitionDateTime = "20240229101400"
    ds.AcquisitionContextSequence = []
    source = _code("5.6.3-9-1", "SCPECG", "Lead I")
    source.CodingSchemeVersion = "1.3"
    channel = Dataset()
    channel.ChannelSourceSequence = [source]
    channel.ChannelSensitivity, channel.ChannelBaseline, channel.ChannelSensitivityCorrectionFactor = 1, 0, 1
    channel.ChannelSensitivityUnitsSequence = [_code("uV", "UCUM", "microvolt")]
    channel.ChannelSampleSkew, channel.WaveformBitsStored = 0, 16
    group = Dataset()
    group.WaveformOriginality, group.NumberOfWaveformChannels = "ORIGINAL", 1
    group.NumberOfWaveformSamples, group.SamplingFrequency = samples, 500
    group.ChannelDefinitionSequence = [channel]
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group["WaveformData"] = _element("WaveformData", "OW", dice.randbytes(2 * samples))
    ds.WaveformSequence = [group]


def _pdf(ds: Dataset, dice: random.Random, size: int | None) -> None:
    ds.ConversionType = "WSD"
    ds.BurnedInAnnotation = "YES"
    ds.AcquisitionDateTime = ""
    ds.DocumentTitle = "Letter"
    ds.ConceptNameCodeSequence = []
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    body = b"%PDF-1.4\n" + dice.randbytes(size or 100) + b"\n%%EOF\n"
    ds.EncapsulatedDocumentLength = len(body)
    ds.EncapsulatedDocument = body + b"\0" * (len(body) % 2)


def _seg(ds: Dataset, dice: random.Random, size: int | None) -> None:
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "SEG1", "", "Quincy^M"
    _frame_of_reference(ds)
    _pixels(ds, dice, size, bits=8, frames=1)
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit = 0
    bits = (int(ds.Rows) * int(ds.Columns) + 7) // 8
    ds["PixelData"] = _element("PixelData", "OB", dice.randbytes(bits + bits % 2))
    ds.LossyImageCompression = "00"
    ds.SegmentationType = "BINARY"
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = 1, "Organ", "MANUAL"
    segment.SegmentedPropertyCategoryCodeSequence = [_code("123037004", "SCT", "Anatomical Structure")]
    segment.SegmentedPropertyTypeCodeSequence = [_code("39607008", "SCT", "Lung")]
    ds.SegmentSequence = [segment]
    organization = uid("dimension", str(ds.SOPInstanceUID))
    from pydicom.tag import Tag

    owner, index = Dataset(), Dataset()
    owner.DimensionOrganizationUID = organization
    index.DimensionOrganizationUID = organization
    index.DimensionIndexPointer, index.FunctionalGroupPointer = Tag(0x0062, 0x000B), Tag(0x0062, 0x000A)
    ds.DimensionOrganizationSequence, ds.DimensionIndexSequence = [owner], [index]
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.SliceThickness, measures.PixelSpacing = 5, [0.5, 0.5]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    content, position, which, frame = Dataset(), Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [1]
    position.ImagePositionPatient = [0, 0, 0]
    which.ReferencedSegmentNumber = 1
    frame.FrameContentSequence, frame.PlanePositionSequence = [content], [position]
    frame.SegmentIdentificationSequence = [which]
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], [frame]


def _raw(ds: Dataset, dice: random.Random, size: int | None) -> None:
    ds.CreatorVersionUID = uid("creator")
    ds.Laterality = ""
    ds.AcquisitionContextSequence = []
    block = ds.private_block(0x0009, "MAKERS 1", create=True)
    block.add_new(0x01, "OB", dice.randbytes((size or 64) & ~1))


def _xa(ds: Dataset, dice: random.Random, size: int | None) -> None:
    from pydicom.tag import Tag

    ds.ImageType = ["ORIGINAL", "PRIMARY", "SINGLE PLANE"]
    ds.PatientOrientation = ds.Laterality = ""
    ds.PixelIntensityRelationship = "LIN"
    ds.KVP, ds.RadiationSetting, ds.XRayTubeCurrent, ds.ExposureTime = 80, "GR", 300, 7
    ds.PositionerMotion, ds.PositionerPrimaryAngle, ds.PositionerSecondaryAngle = "STATIC", 0, 30
    ds.FrameTime = 67
    ds.FrameIncrementPointer = Tag(0x0018, 0x1063)
    ds.AcquisitionNumber = 1
    _pixels(ds, dice, size, bits=8, frames=3)


def _us_single(ds: Dataset, dice: random.Random, size: int | None) -> None:
    """With a region that has its spatial and its pixel component calibration (PS3.3 C.8.5.5)."""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "ABDOMINAL", "0001"]
    ds.PatientOrientation = ds.Laterality = ""
    ds.LossyImageCompression = "00"
    _pixels(ds, dice, size, bits=8)
    ds.SequenceOfUltrasoundRegions = [us_region(ds)]


def us_region(ds: Dataset) -> Dataset:
    """A region of an ultrasound image with its spatial and pixel component calibration (PS3.3 C.8.5.5)."""
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = int(ds.Columns) - 1, int(ds.Rows) - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.02
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.PixelComponentOrganization, region.PixelComponentMask = 0, 255
    region.PixelComponentPhysicalUnits, region.PixelComponentDataType = 2, 1
    region.NumberOfTableBreakPoints = 2
    region.TableOfXBreakPoints, region.TableOfYBreakPoints = [0, 255], [0.0, 1.0]
    return region


def _dental(ds: Dataset, dice: random.Random, size: int | None) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.PatientOrientation, ds.ImageLaterality = ["L", "F"], "B"
    ds.AnatomicRegionSequence = [_code("39481002", "SCT", "Teeth, gums and supporting structures")]
    ds.PrimaryAnatomicStructureSequence = [_code("245647007", "SCT", "Maxillary right central incisor tooth")]
    ds.AcquisitionContextSequence = []
    ds.ViewCodeSequence = [_code("260421001", "SCT", "Left lateral projection")]
    ds.DetectorType, ds.DetectorConfiguration, ds.DetectorID = "SCINTILLATOR", "AREA", "D1"
    ds.DetectorManufacturerName, ds.DetectorManufacturerModelName = "Makers Ltd", "Model D"
    ds.ImagerPixelSpacing = [0.02, 0.02]
    ds.PositionerType = "NONE"
    _pixels(ds, dice, size)
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LIN", -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "IDENTITY"
    ds.WindowCenter, ds.WindowWidth = 2048, 4096
    ds.LossyImageCompression, ds.BurnedInAnnotation = "00", "NO"


def _video(ds: Dataset, dice: random.Random, size: int | None) -> None:
    """A video that nothing plays; its syntax is what the caller says."""
    from pydicom.tag import Tag

    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.PatientOrientation = ds.Laterality = ""
    ds.AcquisitionContextSequence = []
    ds.AnatomicRegionSequence = [_code("39607008", "SCT", "Lung")]
    _pixels(ds, dice, 75, bits=8, samples=3, frames=25)
    ds.Rows, ds.Columns = 576, 720
    ds.PhotometricInterpretation = "YBR_PARTIAL_420"
    ds.FrameTime, ds.CineRate = 40, 25
    ds.FrameIncrementPointer = Tag(0x0018, 0x1063)
    ds.LossyImageCompression, ds.LossyImageCompressionRatio, ds.LossyImageCompressionMethod = "01", 30, "ISO_13818_2"
    ds.PixelData = encapsulate([b"\x00\x00\x01\xb3" + dice.randbytes(size or 300)], has_bot=False)


def _cda(ds: Dataset, dice: random.Random, size: int | None) -> None:
    """An HL7 structured document in an instance (PS3.3 A.45.2)."""
    _pdf(ds, dice, 2)
    ds.DocumentTitle = "Discharge letter"
    ds.HL7InstanceIdentifier = "2.16.840.1.113883.19.4^c266"
    ds.MIMETypeOfEncapsulatedDocument = "text/XML"
    body = b'<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"/>' + b" " * (size or 0)
    ds.EncapsulatedDocumentLength = len(body)
    ds.EncapsulatedDocument = body + b"\0" * (len(body) % 2)


@dataclass(frozen=True)
class _Kind:
    sop_class_uid: str
    modality: str
    record_type: str
    build: Callable[[Dataset, random.Random, int | None], None]


_KIND = {
    "CT": _Kind("1.2.840.10008.5.1.4.1.1.2", "CT", "IMAGE", _ct),
    "MR": _Kind("1.2.840.10008.5.1.4.1.1.4", "MR", "IMAGE", _mr),
    "US": _Kind("1.2.840.10008.5.1.4.1.1.3.1", "US", "IMAGE", _us),
    "SC": _Kind("1.2.840.10008.5.1.4.1.1.7", "OT", "IMAGE", _sc),
    "SC_JPEG": _Kind("1.2.840.10008.5.1.4.1.1.7", "OT", "IMAGE", _sc_jpeg),
    "SEG": _Kind("1.2.840.10008.5.1.4.1.1.66.4", "SEG", "IMAGE", _seg),
    "SR": _Kind("1.2.840.10008.5.1.4.1.1.88.11", "SR", "SR DOCUMENT", _sr),
    "KO": _Kind("1.2.840.10008.5.1.4.1.1.88.59", "KO", "KEY OBJECT DOC", _ko),
    "PR": _Kind("1.2.840.10008.5.1.4.1.1.11.1", "PR", "PRESENTATION", _pr),
    "RTPLAN": _Kind("1.2.840.10008.5.1.4.1.1.481.5", "RTPLAN", "RT PLAN", _rtplan),
    "RTDOSE": _Kind("1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE", "RT DOSE", _rtdose),
    "RTSTRUCT": _Kind("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT", "RT STRUCTURE SET", _rtstruct),
    "ECG": _Kind("1.2.840.10008.5.1.4.1.1.9.1.2", "ECG", "WAVEFORM", _ecg),
    "PDF": _Kind("1.2.840.10008.5.1.4.1.1.104.1", "DOC", "ENCAP DOC", _pdf),
    "RAW": _Kind("1.2.840.10008.5.1.4.1.1.66", "OT", "RAW DATA", _raw),
    "XA": _Kind("1.2.840.10008.5.1.4.1.1.12.1", "XA", "IMAGE", _xa),
    "US1": _Kind("1.2.840.10008.5.1.4.1.1.6.1", "US", "IMAGE", _us_single),
    "IO": _Kind("1.2.840.10008.5.1.4.1.1.1.3", "IO", "IMAGE", _dental),
    "CDA": _Kind("1.2.840.10008.5.1.4.1.1.104.2", "DOC", "ENCAP DOC", _cda),
    "VIDEO": _Kind("1.2.840.10008.5.1.4.1.1.77.1.1.1", "ES", "IMAGE", _video),
}

KINDS = tuple(kind for kind in _KIND if kind not in ("SC_JPEG", "VIDEO"))
"""The kinds of valid instances. SC_JPEG needs ``transfer_syntax_uid=JPEG_BASELINE`` and holds no real JPEG; VIDEO needs
that of a video, and holds none."""


def file_set(folder: Path, instances: Iterable[Made], *, file_set_id: str = "TESTDISC") -> Path:
    """A file-set as another maker writes it (pydicom's FileSet): DICOMDIR and files, no README, no manifest."""
    import warnings

    from pydicom import dcmread
    from pydicom.fileset import FileSet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = FileSet()
        written.ID = file_set_id
        written.UID = UID(uid("file-set", file_set_id))
        for made in instances:
            written.add(dcmread(BytesIO(made.part10())))
        folder.mkdir(parents=True, exist_ok=True)
        written.write(folder)
    return folder


def disc_image(image: Path, folder: Path, *, volume_id: str = "TESTDISC", supplied: Iterable[Any] = ()) -> Path:
    """Everything in ``folder`` as an ISO image, with a README.TXT and a manifest where it has none of its own.

    DICOMDIR, README.TXT and MANIFEST.TXT come first, the others in the order of their names.
    """
    from media.iso9660 import IsoImage
    from media.manifest import manifest_bytes

    contents = {path.relative_to(folder).parts: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    contents.setdefault(("README.TXT",), b"Made for a test.\r\n")
    given = contents.pop(("MANIFEST.TXT",), None)
    first = [("DICOMDIR",), ("README.TXT",)]
    order = [name for name in first if name in contents] + sorted(name for name in contents if name not in first)
    files = [_disc_file(name, contents[name]) for name in order]
    manifest = manifest_bytes(files, supplied) if given is None else given
    files.insert(min(2, len(files)), _disc_file(("MANIFEST.TXT",), manifest))
    with image.open("wb") as out:
        IsoImage(files, volume_id, datetime(2024, 2, 29, tzinfo=UTC)).write(out)
    return image


def _disc_file(name: tuple[str, ...], data: bytes) -> Any:
    from media.items import DiscFile

    return DiscFile(name, len(data), hashlib.sha256(data).hexdigest(), data)


def item_of(made: Made, folder: Path, key: int = 0) -> tuple[Any, Any]:
    """The instance as the planner sees it (``Item``) and its ``Header``; its file lies in ``folder``."""
    from media.header import read_header
    from media.items import Item
    from media.records import Numbers, supply

    path = made.write(folder)
    header = read_header(path)
    data = path.read_bytes()
    numbers = Numbers(f"NOID_{key + 1}", str(key + 1), str(key + 1), str(key + 1))
    item = Item(
        key=key,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        patient=(header.patient_id, header.patient_name, header.patient_birth_date),
        patient_id=header.patient_id,
        record_type=made.record_type,
        directory_keys=header.directory_keys,
        source=path,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        supplied=supply(header, made.record_type, numbers),
    )
    return item, header


def our_disc(
    image: Path,
    instances: Iterable[Made],
    *,
    file_set_id: str = "BURN000001",
    profile: str = "STD-GEN-CD",
    capacity_sectors: int = 330_000,
    seal: Any = None,
) -> Path:
    """One volume with these instances, made as Burnish makes it: contents, plan, file-set, image; signed by ``seal``.

    The instances' files are left in ``<image>.spool``.
    """
    from media import contents, fileset, volumes
    from media.readme import DiscText

    spool = image.with_suffix(".spool")
    spool.mkdir()
    entries = [item_of(made, spool, key) for key, made in enumerate(instances)]
    text = DiscText("Burnish 0.1.0", profile, "CD-R-80")
    sizing = fileset.sizing(text, file_set_id_length=len(file_set_id), signed=seal is not None)
    packing = volumes.pack(
        contents.arrange(entries), capacity_sectors=capacity_sectors, sizing=sizing, many_patients=True
    )
    (volume,) = packing.volumes
    created = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    built = fileset.build(
        volume, text=text, file_set_id=file_set_id, file_set_uid=uid("ours", file_set_id), created=created, seal=seal
    )
    with image.open("wb") as out:
        built.image.write(out)
    return image
