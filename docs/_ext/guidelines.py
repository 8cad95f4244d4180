"""Links each ``[section 4.2]`` to the KATCP guidelines, which have no page of their own for a section."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

#: NRF-KAT7-6.0-IFCE-002, revision 5.1.
ADDRESS = (
    "https://katcp-python.readthedocs.io/en/latest/_downloads/361189acb383a294be20d6c10c257cb4/"
    "NRF-KAT7-6.0-IFCE-002-Rev5-1.pdf"
)
SECTIONS = re.compile(r"\[(sections? [0-9A-Z][^\]]*)\]")


class LinkSections(SphinxPostTransform):
    """Makes references of the brackets, wherever they stand in running text."""

    default_priority = 900

    def run(self, **options: Any) -> None:
        """Sphinx calls this for each page."""
        for text in list(self.document.findall(nodes.Text)):
            parent = text.parent
            if isinstance(parent, (nodes.literal, nodes.literal_block, nodes.reference)):
                continue
            parts: list[nodes.Node] = []
            end = 0
            for match in SECTIONS.finditer(text):
                parts.append(nodes.Text(text[end : match.start(1)]))
                parts.append(nodes.reference("", match[1], internal=False, refuri=ADDRESS))
                end = match.end(1)
            if parts:
                parts.append(nodes.Text(text[end:]))
                parent.replace(text, parts)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(LinkSections)
    return {"parallel_read_safe": True}
