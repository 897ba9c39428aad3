// Tables sort by a click on a column's name: numbers from high to low first, names from a to z; what has no value stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const names = [...table.querySelectorAll("tr.names > th")];
  const body = table.tBodies[0];

  function sort(column, direction) {
    const value = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
    const rows = [...body.rows].sort((a, b) => {
      const [first, second] = [value(a), value(b)];
      if (first === undefined || second === undefined) return (first === undefined) - (second === undefined);
      return direction * compare(first, second);
    });
    body.append(...rows);
  }

  names.forEach((name, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...name.childNodes);
    name.append(button);
    button.addEventListener("click", () => {
      const numeric = [...body.rows].every((row) => !isNaN(row.cells[column].dataset.value ?? 0));
      const before = name.getAttribute("aria-sort");
      const ascending = before ? before === "descending" : !numeric;
      names.forEach((other) => other.removeAttribute("aria-sort"));
      name.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(column, ascending ? 1 : -1);
    });
  });
}
