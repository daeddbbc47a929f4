"""docs/command_line.md names every command, and every field of its JSON."""

from dataclasses import fields
from pathlib import Path

from xtec.cli import COMMANDS
from xtec.cli.bench import Bench
from xtec.cube.pairing import Against
from xtec.cube.report import Info
from xtec.cube.verify import Fault, Verdict

DOCS = Path(__file__).parents[1] / "docs"


def test_every_command_and_every_field_of_its_json_is_described():
    text = (DOCS / "command_line.md").read_text()
    for command in COMMANDS:
        assert f"`xtec {command.__name__.rpartition('.')[2]}" in text
    for kind in (Bench, Info, Verdict, Fault, Against):
        for field in fields(kind):
            assert f"`{field.name}`" in text or field.name == "thumbnail", field.name
