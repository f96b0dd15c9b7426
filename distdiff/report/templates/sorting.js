"use strict";
// Makes the titles of tables buttons that sort the rows. Without this script, a page shows the same tables unsorted.
const words = new Intl.Collator(undefined, { numeric: true });
function inOrder(first, second, isNumber) {
  if (!isNumber) return words.compare(first.textContent, second.textContent);
  return Number(first.dataset.sort) - Number(second.dataset.sort);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    const button = document.createElement("button"), isNumber = title.classList.contains("number");
    button.type = "button";
    button.append(...title.childNodes);
    title.append(button);
    button.addEventListener("click", () => {
      const sign = title.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const isEmpty = (cell) => isNumber ? cell.dataset.sort === undefined : ["", "–"].includes(cell.textContent.trim());
      const rows = [...body.rows].sort((one, other) => {
        const first = one.cells[column], second = other.cells[column];
        return isEmpty(first) - isEmpty(second) || (isEmpty(first) ? 0 : sign * inOrder(first, second, isNumber));
      });
      body.append(...rows);
    });
  });
}
