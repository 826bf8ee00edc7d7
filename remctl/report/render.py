"""Tables as Markdown and LaTeX, with every text escaped: names may come from a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from remctl.report.tables import Cell, Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$^\dagger$",
}


def markdown(table: Table) -> str:
    """A GitHub table under a heading, with its notes."""
    lines = [f"## {escape_markdown(table.title)}", ""]
    if table.rows:
        align = ["---"] * table.num_left + ["---:"] * (len(table.header) - table.num_left)
        lines += [_markdown_row([escape_markdown(text) for text in table.header]), _markdown_row(align)]
        lines += [_markdown_row([_markdown_cell(cell) for cell in row]) for row in table.rows]
    else:
        lines.append("Nothing to show.")
    lines += ["", *(f"- {escape_markdown(note)}" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    return _marked(cell, escape_markdown, "**{}**", "<u>{}</u>")


def _marked(cell: Cell, escape: Callable[[str], str], bold: str, underline: str) -> str:
    value, tail = cell.parts
    text = escape(value)
    text = bold.format(text) if cell.bold else text
    text = underline.format(text) if cell.underline else text
    return text + (" " if tail.startswith(" ") else "") + escape(tail)


def escape_markdown(text: str) -> str:
    """One line in which nothing is read as Markdown or HTML."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", line)


def latex(table: Table) -> str:
    """A `table` environment; needs the package booktabs."""
    if not table.rows:
        return f"% {escape_latex(table.title)}: nothing to show\n"
    columns = "l" * table.num_left + "r" * (len(table.header) - table.num_left)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(table.title)}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _latex_row([escape_latex(text) for text in table.header]),
        "\\midrule",
    ]
    for number, row in enumerate(table.rows):
        lines += ["\\midrule"] * (number in table.rules and number > 0)
        lines.append(_latex_row([_latex_cell(cell) for cell in row]))
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [f"\\par\\footnotesize {escape_latex(note)}" for note in table.notes]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_cell(cell: Cell) -> str:
    return _marked(cell, escape_latex, "\\textbf{{{}}}", "\\underline{{{}}}")


def escape_latex(text: str) -> str:
    """One line in which nothing is read as a command."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
