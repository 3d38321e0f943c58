"""PREMIS 3 (Library of Congress, http://www.loc.gov/premis/v3): a recording's files, and what happened to them. Pure.

One document a recording, made of its seal and its ledger. Event types are terms of the Library of Congress'
preservation events vocabulary (http://id.loc.gov/vocabulary/preservation/eventType).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from xml.etree import ElementTree as ET

from recording.ledger import Act, Deletion, Fixity, Hold, Note, Release, Retention
from recording.package import Seal, SealedFile

NAMESPACE: Final = "http://www.loc.gov/premis/v3"
_XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
_EVENT_TYPES: Final = "http://id.loc.gov/vocabulary/preservation/eventType/"
_FORMATS: Final = {  # media type, PRONOM identifier
    ".mp4": ("video/mp4", "fmt/199"), ".mka": ("audio/x-matroska", "fmt/569"), ".mkv": ("video/x-matroska", "fmt/569"),
    ".vtt": ("text/vtt", None), ".jsonl": ("application/jsonl", None), ".json": ("application/json", "fmt/817"),
    ".txt": ("text/plain", "x-fmt/111"),
}  # fmt: skip

ET.register_namespace("premis", NAMESPACE)
ET.register_namespace("xsi", _XSI)


def write_premis(
    identifier: str,
    seal: Seal | None,
    files: Sequence[SealedFile],
    acts: Iterable[Act],
) -> bytes:
    """The document, as UTF-8 XML. ``seal`` is None when it is gone or spoilt; ``files``: what should be there."""
    root = ET.Element(_name("premis"), {"version": "3.0"})
    software = seal.software if seal is not None else "mosaique"
    _representation(root, identifier, seal, files)
    for file in files:
        _file(root, identifier, file)
    agents: dict[str, str] = {software: "software"}
    events = _Events(root, identifier)
    if seal is not None:
        events.add("capture", "cre", seal.started, "the conference was recorded", "success", software)
        outcome = "success" if seal.complete else "warning"
        detail = f"sealed as a BagIt bag; {seal.reason}" if seal.reason else "sealed as a BagIt bag"
        events.add(
            "message digest calculation", "mes", seal.ended, "SHA-256 of every file", "success", software
        )
        events.add("ingestion", "ing", seal.ended, detail, outcome, software)
    for act in acts:
        agents.setdefault(act.by, "software" if act.by == "policy" else "person")
        events.act(act)
    for name, kind in agents.items():
        agent = ET.SubElement(root, _name("agent"))
        _identifier(agent, "agentIdentifier", "local", name)
        _text(agent, "agentName", name)
        _text(agent, "agentType", kind)
    ET.indent(root, " ")
    body: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return body + b"\n"


class _Events:
    """Numbers events of one recording and writes them."""

    def __init__(self, root: ET.Element, identifier: str) -> None:
        self._root = root
        self._identifier = identifier
        self._number = 0

    def add(
        self, kind: str, code: str, moment: str, detail: str, outcome: str, agent: str, note: str = ""
    ) -> None:
        """One event, linked to the recording and to who did it."""
        self._number += 1
        event = ET.SubElement(self._root, _name("event"))
        _identifier(event, "eventIdentifier", "local", f"{self._identifier}/event/{self._number}")
        _text(event, "eventType", kind).set("valueURI", _EVENT_TYPES + code)
        _text(event, "eventDateTime", moment)
        _text(ET.SubElement(event, _name("eventDetailInformation")), "eventDetail", detail)
        result = ET.SubElement(event, _name("eventOutcomeInformation"))
        _text(result, "eventOutcome", outcome)
        if note:
            _text(ET.SubElement(result, _name("eventOutcomeDetail")), "eventOutcomeDetailNote", note)
        link = ET.SubElement(event, _name("linkingAgentIdentifier"))
        _text(link, "linkingAgentIdentifierType", "local")
        _text(link, "linkingAgentIdentifierValue", agent)
        about = ET.SubElement(event, _name("linkingObjectIdentifier"))
        _text(about, "linkingObjectIdentifierType", "ULID")
        _text(about, "linkingObjectIdentifierValue", self._identifier)

    def act(self, act: Act) -> None:
        """One entry of the ledger as an event."""
        match act:
            case Fixity():
                outcome = "fail" if act.damaged else "pass"
                detail = f"{act.files} files, {act.size} bytes read from the store and compared (SHA-256)"
                self.add("fixity check", "fix", act.time, detail, outcome, act.by, ", ".join(act.damaged))
            case Hold():
                self.add("policy assignment", "poa", act.time, "legal hold", "success", act.by, act.reason)
            case Release():
                self.add(
                    "policy assignment", "poa", act.time, "legal hold released", "success", act.by, act.reason
                )
            case Retention():
                until = act.until or "no date"
                self.add(
                    "policy assignment", "poa", act.time, f"retention ({act.mode})", "success", act.by, until
                )
            case Note():
                self.add(
                    "metadata modification", "mem", act.time, "another note", "success", act.by, act.note
                )
            case Deletion():
                self.add("deletion", "del", act.time, "every file was removed", "success", act.by, act.reason)


def _representation(
    root: ET.Element, identifier: str, seal: Seal | None, files: Sequence[SealedFile]
) -> None:
    one = ET.SubElement(root, _name("object"), {f"{{{_XSI}}}type": "premis:representation"})
    _identifier(one, "objectIdentifier", "ULID", identifier)
    if seal is not None and seal.note:
        _text(one, "originalName", seal.note)
    for file in files:
        relation = ET.SubElement(one, _name("relationship"))
        _text(relation, "relationshipType", "structural")
        _text(relation, "relationshipSubType", "has part")
        _identifier(relation, "relatedObjectIdentifier", "local", f"{identifier}/{file.path}")


def _file(root: ET.Element, identifier: str, file: SealedFile) -> None:
    one = ET.SubElement(root, _name("object"), {f"{{{_XSI}}}type": "premis:file"})
    _identifier(one, "objectIdentifier", "local", f"{identifier}/{file.path}")
    what = ET.SubElement(one, _name("objectCharacteristics"))
    fixity = ET.SubElement(what, _name("fixity"))
    _text(fixity, "messageDigestAlgorithm", "SHA-256")
    _text(fixity, "messageDigest", file.sha256)
    _text(what, "size", str(file.size))
    form = ET.SubElement(what, _name("format"))
    media_type, pronom = _FORMATS.get("." + file.path.rpartition(".")[2], ("application/octet-stream", None))
    _text(ET.SubElement(form, _name("formatDesignation")), "formatName", media_type)
    if pronom is not None:
        registry = ET.SubElement(form, _name("formatRegistry"))
        _text(registry, "formatRegistryName", "PRONOM")
        _text(registry, "formatRegistryKey", pronom)
    _text(one, "originalName", file.path)


def _identifier(parent: ET.Element, name: str, kind: str, value: str) -> None:
    one = ET.SubElement(parent, _name(name))
    _text(one, f"{name}Type", kind)
    _text(one, f"{name}Value", value)


def _text(parent: ET.Element, name: str, text: str) -> ET.Element:
    """XML 1.0 has no control characters, not even escaped: they become spaces."""
    one = ET.SubElement(parent, _name(name))
    one.text = "".join(
        c if c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff" else " " for c in text
    )
    return one


def _name(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"
