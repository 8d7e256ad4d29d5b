// Sorts the tables of class "sortable" by the column whose heading is pressed. Without scripts they
// stay as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    const value = row => {
      const cell = row.cells[column];
      const text = cell.dataset.value ?? cell.textContent;
      const number = Number(text);
      return text === "" ? -Infinity : Number.isNaN(number) ? text : number;
    };
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const order = (a, b) => typeof a === "number" && typeof b === "number"
        ? a - b : String(a).localeCompare(String(b));
      const rows = [...body.rows].map(row => [value(row), row]);
      rows.sort(([a], [b]) => ascending ? order(a, b) : order(b, a));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
