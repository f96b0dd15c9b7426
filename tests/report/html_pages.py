"""What a page holds, as a browser reads it."""

import re
from html.parser import HTMLParser

ADDRESSES = ("src", "href", "data", "poster", "action", "srcset", "xlink:href", "background")
ELSEWHERE = re.compile(r"url\((?!#)|@import|//[a-z0-9.-]+\.[a-z]{2,}", re.IGNORECASE)
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and the text of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text, self.scripts, self.styles = "", [], []
        self.feed(text)
        self.close()
        assert self.open == [], "each element that begins ends"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        match self.open[-1:]:
            case ["script"]:
                self.scripts.append(data)
            case ["style"]:
                self.styles.append(data)
            case _:
                self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def addresses(self) -> list[str]:
        """All that the page would load or lead to beyond itself."""
        values = [attributes[name] for _, attributes in self.tags for name in ADDRESSES if attributes.get(name)]
        styles = [*self.styles, *(attributes.get("style") or "" for _, attributes in self.tags)]
        found = [value for value in values if not value.startswith(("data:image/", "#"))]
        return found + [style for style in styles if ELSEWHERE.search(style)]
