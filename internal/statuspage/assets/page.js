// Updates the page: the node sends sections that have changed as server-sent events. When the node accepts no further stream,
// the script loads the whole page again from time to time.
"use strict";

const reloadPause = 10000; // milliseconds between loads without a stream
const connection = document.getElementById("connection");

// showProblem shows a text about the connection; an empty one hides it.
function showProblem(text) {
  if (connection.textContent !== text) connection.textContent = text;
  connection.hidden = text === "";
}

// replace replaces the content of a section, and keeps its scroll positions and the focus.
function replace(id, html) {
  const section = document.getElementById(id);
  if (!section || section.dataset.html === html) return;
  const kept = new Map();
  for (const e of section.querySelectorAll("[data-keep]")) kept.set(e.dataset.keep, [e.scrollLeft, e.scrollTop, e === document.activeElement]);
  section.innerHTML = html;
  section.dataset.html = html;
  for (const e of section.querySelectorAll("[data-keep]")) {
    const [left, top, focus] = kept.get(e.dataset.keep) || [0, 0, false];
    e.scrollLeft = left;
    e.scrollTop = top;
    if (focus) e.focus({ preventScroll: true });
  }
}

// follow opens the stream of events.
function follow() {
  const events = new EventSource("/events");
  events.addEventListener("open", () => showProblem(""));
  events.addEventListener("section", (e) => {
    const { id, html } = JSON.parse(e.data);
    replace(id, html);
  });
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) {
      setTimeout(load, reloadPause);
    } else {
      showProblem("No connection to the node: this page is out of date. Retrying.");
    }
  });
}

// load loads the page once, then tries to open a stream again.
async function load() {
  try {
    const response = await fetch("/");
    if (!response.ok) throw new Error(response.statusText);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const section of page.querySelectorAll("header[id], section[id]")) replace(section.id, section.innerHTML);
    showProblem("");
  } catch {
    showProblem("No connection to the node: this page is out of date. Retrying.");
  }
  setTimeout(follow, reloadPause);
}

follow();
