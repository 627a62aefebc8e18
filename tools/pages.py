"""What the generated pages are made of."""

from __future__ import annotations

GENERATED = "<!-- Made by `python tools/docs.py`; do not edit. -->"


def table(titles: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""

    def line(cells: list[str]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    return [line(titles), line(["---"] * len(titles)), *(line(row) for row in rows)]


def page(title: str, *parts: str | list[str]) -> str:
    """A page: its title, the mark of generated pages, and its parts."""
    lines = [f"# {title}", "", GENERATED, ""]
    for part in parts:
        lines += [*([part] if isinstance(part, str) else part), ""]
    return "\n".join(lines).rstrip() + "\n"
