"""Writes what the stages found as a dataset: files to train on, a manifest, a card.

Promises: the same database gives the same bytes, in whatever order its rows
came to be; memory stays flat but for a few hashes per commit; a folder that
holds anything but an earlier export is left alone. Every row names its
commit, what made it and the answers it rests on, where the format has room
for that; the manifest says the rest.
"""

from trustmine.export.manifest import Manifest
from trustmine.export.write import FORMATS, TASKS, export

__all__ = ["FORMATS", "TASKS", "Manifest", "export"]
