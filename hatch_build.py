"""How the README becomes the long description on PyPI, where a relative link would lead nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: A fence of code, or a link or picture with a relative target.
_FENCE_OR_LINK = re.compile(
    r"^```.*?^```$|(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!https?://|\#)(?P<target>[^)\s]+)\)", re.S | re.M
)


class LongDescription(MetadataHookInterface):
    """Leads the README's links to the files of this version under ``Source`` of ``[project.urls]``.

    Without that address there is nowhere to lead to: the words of a link stay, the link goes.
    """

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling, once it knows the version."""
        source = metadata.get("urls", {}).get("Source", "").rstrip("/")

        def absolute(found: re.Match[str]) -> str:
            if found["target"] is None:
                return found[0]
            if not source:
                return found["text"]
            kind = "raw" if found["picture"] else "blob"
            address = f"{source}/{kind}/v{metadata['version']}/{found['target']}"
            return f"{found['picture']}[{found['text']}]({address})"

        text = _FENCE_OR_LINK.sub(absolute, Path(self.root, "README.md").read_text(encoding="utf-8"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
