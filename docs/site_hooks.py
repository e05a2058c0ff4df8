"""What the site adds to the pages, as hooks of mkdocs: the order of the pages, and links that lead out of docs/.

The order is that of docs/index.md, the map, so a page that is on it needs no other entry.
"""

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def repository() -> str:
    """The address of the repository, which pyproject.toml names."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["urls"]["Repository"])


def on_config(config: Any) -> Any:
    """Order the pages as the map does, under its headings."""
    config.repo_url = repository()
    config.repo_name = "onnxprune"
    config.nav = [{"onnxprune": "index.md"}, *sections((ROOT / "docs" / "index.md").read_text(encoding="utf-8"))]
    return config


def sections(index: str) -> list[dict[str, Any]]:
    """The headings of the map, each with the pages that are linked below it; a page counts where it is linked first."""
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for part in re.split(r"^## ", index, flags=re.MULTILINE):
        heading, _, text = part.partition("\n")
        links = [path for _, path, _ in _LINK.findall(text) if path.endswith(".md") and not path.startswith("..")]
        pages = [path for path in dict.fromkeys(links) if path not in seen]
        seen.update(pages)
        if pages:
            found.append({"Begin" if heading.startswith("#") else heading: pages})
    return found


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links that go out of docs/ to the repository."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def led(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        outside = not target.startswith("docs/")
        return f"{link[1]}{repository()}/blob/main/{target}{link[3]}" if outside else link[0]

    return _LINK.sub(led, markdown)
