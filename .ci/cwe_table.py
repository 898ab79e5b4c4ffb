"""Writes trustmine/cwe_table.py from MITRE's catalogue.

Get cwec_v*.xml at https://cwe.mitre.org/data/downloads.html, then:
python .ci/cwe_table.py cwec_v4.14.xml > trustmine/cwe_table.py

Kept are the weaknesses of C and C++ (views 658 and 659), those that NVD maps to (1003, and 635 for older records),
those that trustmine may name (config.CWES), and all that stands above them in the view Research Concepts (1000).
"""

import sys
import xml.etree.ElementTree as ElementTree  # the catalogue is MITRE's own
from pathlib import Path
from xml.etree.ElementTree import Element

from trustmine.config import CWES

_SPACE = {"c": "http://cwe.mitre.org/cwe-7"}
_HEAD = '''"""Names and parents of weaknesses; read by trustmine.cwe.

Generated from MITRE's catalogue CWE {version} of {date} by .ci/cwe_table.py; not edited by hand. One weakness a line:
number, its parents in the view Research Concepts (the primary one first; - for none), its name.

CWE is Copyright (c) 2006-{year}, The MITRE Corporation. MITRE hereby grants you a non-exclusive, royalty-free license
to use CWE for research, development, and commercial purposes. Any copy you make for such purposes is authorized on the
condition that you reproduce MITRE's copyright designation and this license in any such copy.
https://cwe.mitre.org/about/termsofuse.html
"""
# ruff: noqa: E501

TABLE = """\\
'''


def _related(weakness: Element, view: str) -> list[str]:
    found = [
        one
        for one in weakness.findall("c:Related_Weaknesses/c:Related_Weakness", _SPACE)
        if one.get("Nature") == "ChildOf" and one.get("View_ID") == view
    ]
    found.sort(key=lambda one: one.get("Ordinal") != "Primary")
    return [one.attrib["CWE_ID"] for one in found]


def main() -> None:
    """Print the module."""
    catalogue = ElementTree.fromstring(Path(sys.argv[1]).read_bytes())  # noqa: S314 - see above
    weaknesses = {one.attrib["ID"]: one for one in catalogue.findall("c:Weaknesses/c:Weakness", _SPACE)}
    names = {i: one.attrib["Name"] for i, one in weaknesses.items()}
    names |= {one.attrib["ID"]: one.attrib["Name"] for one in catalogue.findall("c:Categories/c:Category", _SPACE)}
    todo = {cwe.removeprefix("CWE-") for cwe in CWES}
    todo |= {
        i
        for i, one in weaknesses.items()
        if _related(one, "1003")
        or {"C", "C++"} & {by.get("Name") for by in one.findall("c:Applicable_Platforms/c:Language", _SPACE)}
    }
    for view in catalogue.findall("c:Views/c:View", _SPACE):
        if view.get("ID") in ("635", "1003"):
            todo |= {member.attrib["CWE_ID"] for member in view.findall("c:Members/c:Has_Member", _SPACE)}
    parents: dict[str, list[str]] = {}
    while todo:
        i = todo.pop()
        parents[i] = _related(weaknesses[i], "1000") if i in weaknesses else []
        todo |= set(parents[i]) - parents.keys()
    date = catalogue.attrib["Date"]
    lines = [f"{i} {','.join(parents[i]) or '-'} {names[i]}" for i in sorted(parents, key=int)]
    head = _HEAD.format(version=catalogue.attrib["Version"], date=date, year=date[:4])
    sys.stdout.write(head + "\n".join(lines) + '\n"""\n')


main()
