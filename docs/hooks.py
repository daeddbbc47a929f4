"""What `mkdocs build` does beyond its settings: no page is kept twice, no path is a dead end.

README, CONTRIBUTING and CHANGELOG become pages, and what any page names as `docs/format.md`
becomes a link to that page.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""Page -> file of the repository that it is."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside of docs/."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Make links of `docs/x.md` in backticks, where there is such a page."""
    up = "../" * page.file.src_uri.count("/")

    def link(found: re.Match[str]) -> str:
        name = found[1]
        return f"[{name}]({up}{name}.md)" if f"{name}.md" in files.src_uris else found[0]

    return re.sub(r"`docs/([a-z_/]+)\.md`", link, markdown)
