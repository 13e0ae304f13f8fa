"""Every link of our pages leads somewhere, and every page can be reached."""

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links, name_of

__all__: list[str] = []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    wrong = []
    for link in links(page):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            wrong.append(f"{link}: no such file")
        elif fragment and fragment not in anchors(target):
            wrong.append(f"{link}: no such heading in {name_of(target)}")
    assert not wrong


def test_every_page_is_listed_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    pages = {page for page in PAGES if page.parent == index.parent} - {index}
    assert pages <= listed


def test_anchors_are_those_of_forges(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Why a `flow` ended?\n## Who, when\n```sh\n# no heading\n```\n## Who, when\n")
    assert anchors(page) == {"why-a-flow-ended", "who-when", "who-when-1"}
