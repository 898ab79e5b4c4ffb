"""Writes the instructions of s4 as a dataset: files to train on, a manifest, a card.

Promises: the same database gives the same bytes, in whatever order its rows
came to be; memory stays flat; a folder that holds anything but an earlier
export is left alone. Every row names its commit, what made it and the answers
it rests on; the manifest says the rest.
"""

from trustmine.export.manifest import Manifest
from trustmine.export.write import FORMATS, export

__all__ = ["FORMATS", "Manifest", "export"]
