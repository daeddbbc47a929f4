"""What is shown to people: a title, and rows of a name and a text.

Below: nothing. Above: workers, plan.
"""

import html


class Table:
    """Shows `rows`, as text and in notebooks."""

    __slots__ = ()
    title = ""

    def rows(self) -> list[tuple[str, str]]:
        """Names and texts."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return the table as text."""
        return "\n".join(
            [f"<{self.title}>", *(f"  {name:<12} {text}" for name, text in self.rows())]
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self.rows()
        )
        return f"<table><caption>{html.escape(self.title)}</caption>{rows}</table>"
