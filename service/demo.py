"""``make demo``: the main job on real input, from C-STORE to verified and catalogued disc images.

Starts a service on loopback with an empty store, sends it real studies over DICOM (pydicom's packaged files, or a
folder of yours), asks for discs so small that a request spans several volumes, and shows what came of it. Everything
goes through the doors that users have: DICOM and the ``burnish`` command.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from service.commands.common import patient_words, plain

_BURNISH = [sys.executable, "-m", "service"]
_CONTEXTS = 120
"""Presentation contexts of one association; the standard's limit is 128 (PS3.8 9.3.2.2)."""
_SHOWN_STUDIES = 30
console = Console()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=Path, help="a folder of DICOM files to send instead of pydicom's own")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="made anew; holds discs/ and result.json")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.absolute()
    if folder.exists():
        if not (folder / "burnish.toml").exists() and any(folder.iterdir()):
            console.print(f"[red]{folder} holds something else; give another --folder[/]")
            return 2
        shutil.rmtree(folder)
    discs = folder / "discs"
    discs.mkdir(parents=True)
    settings = folder / "burnish.toml"
    settings.write_text(
        '[log]\nlevel = "error"\n[site]\ninstitution = "Demonstration Hospital"\ncontact = "radiology@example.org"\n'
        f'[burners.iso]\ndriver = "iso"\nfolder = {json.dumps(str(discs))}\n'
    )
    common = ["--data", str(folder / "data"), "--config", str(settings)]

    console.rule("1. The service starts on loopback, with an empty store")
    service = subprocess.Popen(
        [*_BURNISH, "serve", *common, "--dicom-port", "0", "--http-port", "0", "--json"], stdout=subprocess.PIPE
    )
    assert service.stdout is not None
    try:
        line = service.stdout.readline()
        if not line:
            console.print("[red]the service did not start[/]")
            return 1
        dicom = json.loads(line)["dicom"]
        console.print(f"listening: {dicom['ae_title']} at {dicom['host']}:{dicom['port']}")

        console.rule("2. Studies arrive by C-STORE")
        _send(arguments.studies or _packaged(), dicom)
        studies = _burnish("studies", *common)
        _show_studies(studies)
        if not studies:
            console.print("[red]nothing was received, so there is nothing to burn[/]")
            return 1

        console.rule("3. A patient's disc, on media so small that it takes several")
        patient, capacity = _spanning(studies, common)
        documents = [_burn("--patient-id", patient, "--capacity-sectors", str(capacity), common=common)]
        console.rule("4. Everything that is on no disc yet, several patients on a disc")
        documents.append(_burn("--not-on-disc", "--patients-per-disc", "many", common=common))

        (folder / "result.json").write_text(json.dumps(documents, indent=2) + "\n")
        console.rule("5. What the catalogue says")
        _show_catalogue(studies, common)
    finally:
        service.terminate()
        service.wait(timeout=60)
    return _summary(documents, folder)


def _packaged() -> Path:
    import pydicom.data

    return Path(pydicom.data.__file__).parent / "test_files"


def _send(folder: Path, dicom: dict[str, Any]) -> None:
    """C-STORE every DICOM file of a folder that names its SOP Class; what is refused is told with its status."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import UID
    from pynetdicom import AE, _config

    warnings.simplefilter("ignore")  # real files are not always as the standard has them
    contexts: dict[tuple[str, str], list[Path]] = {}
    syntax_of: dict[Path, str] = {}
    no_dicom = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            head = dcmread(path, specific_tags=["SOPInstanceUID", "SOPClassUID"], stop_before_pixels=True)
            key = (str(head.SOPClassUID), str(head.file_meta.TransferSyntaxUID))
        except (InvalidDicomError, AttributeError, OSError, ValueError, EOFError, KeyError):
            no_dicom += 1  # DICOMDIRs, files without meta header, broken ones: nothing that C-STORE can carry
            continue
        contexts.setdefault(key, []).append(path)
        syntax_of[path] = key[1]
    outcome: Counter[str] = Counter()
    keys = list(contexts)
    total = sum(len(paths) for paths in contexts.values())
    todo = [keys[i : i + _CONTEXTS] for i in range(0, len(keys), _CONTEXTS)]
    for chunk in todo:
        ae = AE(ae_title="DEMO_SCU")
        for sop_class, syntax in chunk:
            ae.add_requested_context(sop_class, syntax)
        association: Any = ae.associate(dicom["host"], dicom["port"], ae_title=dicom["ae_title"])
        if not association.is_established:
            raise SystemExit("the service refused the association")
        paths = [path for key in chunk for path in contexts[key]]
        for path in track(paths, description=f"sending {total} files", console=console, transient=True):
            if not association.is_established:
                association = ae.associate(dicom["host"], dicom["port"], ae_title=dicom["ae_title"])
            # Compressed pixel data as they are in the file; other files with the UIDs of their data set, which in real
            # ones are not always those of their meta information.
            _config.STORE_SEND_CHUNKED_DATASET = UID(syntax_of[path]).is_encapsulated
            try:
                status = association.send_c_store(path)
                value = status.Status if "Status" in status else None
            except (ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
                outcome["not sendable"] += 1
                console.print(f"  {path.name}: cannot be sent ({error})", style="dim", highlight=False)
                continue
            outcome["stored" if value == 0 else "refused"] += 1
            if value != 0:
                shown = "no answer" if value is None else f"{value:04X}H"
                comment = getattr(status, "ErrorComment", "")
                console.print(f"  {path.name}: {shown} {comment}", style="dim", highlight=False)
        association.release()
    told = ", ".join(f"{count} {what}" for what, count in outcome.items())
    console.print(f"{total} files sent: {told}; {no_dicom} other files left out")


def _burnish(*arguments: str) -> Any:
    """The JSON document of a ``burnish`` command."""
    done = subprocess.run([*_BURNISH, *arguments, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode > 1:
        raise SystemExit(f"burnish {' '.join(arguments)} failed")
    return json.loads(done.stdout)


def _burn(*arguments: str, common: list[str]) -> dict[str, Any]:
    document: dict[str, Any] = _burnish("burn", *arguments, "--skip-refused", "--wait", *common)
    job = _burnish("job", document["job"], *common)
    refused = (job.get("report") or {}).get("refused", [])
    console.print(f"job {document['job']}: {document['state']}, {len(document['discs'])} disc(s)")
    for entry in refused:
        console.print(f"  refused {entry['sop_instance_uid']}: {entry['reason']}", style="dim", highlight=False)
    for disc in document["discs"]:
        console.print(f"  {disc['file_set_id']} {disc['state']} {disc['image']}", highlight=False, soft_wrap=True)
    return document


def _spanning(studies: list[dict[str, Any]], common: list[str]) -> tuple[str, int]:
    """A Patient ID, and sectors of a medium of which this patient needs several although each instance fits on one."""
    size: Counter[str] = Counter()
    for study in studies:
        if study["patient_id"] and study["instances"] > 1:
            size[study["patient_id"]] += study["bytes"]
    patients = [patient for patient, _ in size.most_common(10)] or [str(studies[0]["patient_id"])]
    for patient in patients:
        select = ["--patient-id", patient, "--skip-refused", *common]
        whole = max((volume["sectors"] for volume in _burnish("plan", *select)["volumes"]), default=0)
        best = 0
        for tenths in (9, 8, 7, 6, 5):
            capacity: int = whole * tenths // 10
            if not capacity:
                break
            plan = _burnish("plan", "--capacity-sectors", str(capacity), *select)
            if any("INST_OVERSIZED" in entry["reason"] for entry in plan["refused"]):
                break
            best = capacity
            if len(plan["volumes"]) > 2:
                break
        if best:
            return patient, best
    raise SystemExit("none of these patients has two instances that could be on different discs")


def _show_studies(studies: list[dict[str, Any]]) -> None:
    table = Table("Patient ID", "Name", "Date", "Series", "Instances", "MB", title=f"{len(studies)} studies")
    for study in studies[:12]:
        table.add_row(
            *(Text(plain(study[key])) for key in ("patient_id", "patient_name", "study_date", "series", "instances")),
            f"{study['bytes'] / 1e6:.1f}",
        )
    if len(studies) > 12:
        table.add_row("...", f"and {len(studies) - 12} more")
    console.print(table)


def _show_catalogue(studies: list[dict[str, Any]], common: list[str]) -> None:
    """Which disc holds how many instances of each study, as the catalogue knows it."""
    for study in studies[:_SHOWN_STUDIES]:
        who = patient_words(study["patient_id"], study["patient_name"])
        title = f"{who}, {study['study_date'] or '(no date)'}, {study['instances']} instances:"
        console.print(title, highlight=False, markup=False, style="bold")
        for disc in _burnish("find", "--study", study["study_instance_uid"], *common):
            told = f"{disc['state']} by {disc['verified_by']}"
            console.print(
                f"  {len(disc['instances'])} on {disc['file_set_id']} copy {disc['copy']}, {told}: {disc['location']}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def _summary(documents: list[dict[str, Any]], folder: Path) -> int:
    states = Counter(disc["state"] for document in documents for disc in document["discs"])
    spans = max((disc["volume"] for document in documents for disc in document["discs"]), default=0)
    good = bool(states) and set(states) == {"VERIFIED"} and all(d["state"] == "DONE" for d in documents)
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    style = "green" if good else "red"
    console.print(f"[{style}]discs: {told or 'none'}; the longest request spans {spans} volumes[/]")
    console.print(f"images: {folder / 'discs'}\nresult: {folder / 'result.json'}", soft_wrap=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
