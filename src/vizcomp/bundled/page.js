(function () {
  "use strict";
  var root = document.documentElement;
  document.getElementById("theme").addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  document.querySelectorAll(".compare input").forEach(function (input) {
    function show() {
      input.parentNode.style.setProperty("--pos", input.value + "%");
      input.setAttribute("aria-valuetext", input.value + "% source, " + (100 - input.value) + "% result");
    }
    input.addEventListener("input", show);
    show(); // a reload may bring back the last position of the control
  });

  var copy = document.getElementById("copy"), command = document.getElementById("command");
  copy.addEventListener("click", function () {
    var range = document.createRange(), chosen = getSelection(), done = false;
    range.selectNodeContents(command);
    chosen.removeAllRanges();
    chosen.addRange(range);
    try { done = document.execCommand("copy"); } catch (error) { done = false; }
    copy.textContent = done ? "Copied" : "Press Ctrl+C";
    if (done) { chosen.removeAllRanges(); }
    setTimeout(function () { copy.textContent = "Copy"; }, 2000);
  });

  function value(row, column) {
    var text = row.cells[column].textContent.trim();
    if (text === "" || text === "\u2013") { return null; }
    if (text === "identical") { return Infinity; }
    var size = /^(\d+)×(\d+)$/.exec(text);
    if (size) { return size[1] * size[2]; }
    var number = Number(text.replace(/[,%]/g, "").replace("\u2212", "-"));
    return isNaN(number) ? text.toLowerCase() : number;
  }
  function order(a, b) {
    if (typeof a === typeof b) { return a < b ? -1 : a > b ? 1 : 0; }
    return typeof a === "number" ? -1 : 1;
  }
  document.querySelectorAll(".files thead th").forEach(function (head, column) {
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () {
      var up = head.getAttribute("aria-sort") !== "ascending", body = head.closest("table").tBodies[0];
      head.parentNode.querySelectorAll("[aria-sort]").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      Array.from(body.rows).map(function (row) { return [value(row, column), row]; }).sort(function (a, b) {
        if (a[0] === null || b[0] === null) { return (a[0] === null) - (b[0] === null); } // rows without a value stay last
        return up ? order(a[0], b[0]) : order(b[0], a[0]);
      }).forEach(function (pair) { body.appendChild(pair[1]); });
    });
  });
})();
