"use strict";
// Tables sort by the header's button: ascending, descending, as they came. Rows without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const numbers = [Number(a), Number(b)];
    return numbers.some(Number.isNaN) ? a.localeCompare(b, "en", { numeric: true }) : numbers[0] - numbers[1];
  };
  headers.forEach((header, column) => {
    header.querySelector("button")?.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      const order = next[header.getAttribute("aria-sort") ?? "none"];
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      const rows = [...original];
      if (order !== "none") {
        header.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const [known, unknown] = [rows.filter((r) => key(r, column) !== ""), rows.filter((r) => key(r, column) === "")];
        known.sort((a, b) => sign * compare(key(a, column), key(b, column)));
        rows.splice(0, rows.length, ...known, ...unknown);
      }
      body.append(...rows);
    });
  });
}
// Figures enlarge in one dialog, which Escape, its button and a click beside it close.
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => {
    dialog.querySelector("h2").textContent = button.dataset.title;
    dialog.querySelector("div").replaceChildren(button.querySelector("picture").cloneNode(true));
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
// A link into a closed part opens it.
const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  target?.closest("details")?.setAttribute("open", "");
  target?.scrollIntoView();
};
// On paper the runs are there, whether or not they were open.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details.runs:not([open])")];
  closed.forEach((details) => details.setAttribute("open", ""));
});
addEventListener("afterprint", () => closed.forEach((details) => details.removeAttribute("open")));
addEventListener("hashchange", reveal);
if (location.hash) reveal();
