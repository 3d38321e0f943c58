from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import mixer
from mixer.events import EVENTS, EventHub
from mixer.homecoming import SETTLED


def test_the_page_lists_each_event_and_what_it_holds() -> None:
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{kind}` | {data} |" for kind, data in EVENTS.items()]


def test_an_event_that_nobody_knows_is_a_fault_of_ours() -> None:
    with pytest.raises(ValueError, match=re.escape("room.lost")):
        EventHub().publish("room.lost", "council")


def test_whatever_is_published_is_an_event_of_the_list() -> None:
    texts, published = set(), set()
    for path in Path(mixer.__path__[0]).rglob("*.py"):
        if path.name == "events.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "publish" and node.args:
                named = [n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)]
                published |= {text for text in named if isinstance(text, str) and not text.endswith(".")}
    assert published
    assert published <= EVENTS.keys()
    made = {f"recording.{act}" for act in ("hold", "release", "retain", "delete", *SETTLED)}
    assert EVENTS.keys() - made <= texts, "an event that nobody publishes"
