// Keeps the page up to date: sections come as they change, by server-sent events, or where the node has no stream to spare by loading
// the page again now and then.
"use strict";

const again = 10000; // milliseconds between loads without a stream
const connection = document.getElementById("connection");

function say(text) {
  if (connection.textContent !== text) connection.textContent = text;
  connection.hidden = text === "";
}

// replace puts new content into a section, and leaves the reader where he is: what he scrolled, and what has the focus.
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

function follow() {
  const events = new EventSource("/events");
  events.addEventListener("open", () => say(""));
  events.addEventListener("section", (e) => {
    const { id, html } = JSON.parse(e.data);
    replace(id, html);
  });
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) {
      setTimeout(load, again);
    } else {
      say("No connection to the node: what is here is from before. Trying again.");
    }
  });
}

async function load() {
  try {
    const answer = await fetch("/");
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const section of page.querySelectorAll("header[id], section[id]")) replace(section.id, section.innerHTML);
    say("");
  } catch {
    say("No connection to the node: what is here is from before. Trying again.");
  }
  setTimeout(follow, again);
}

follow();
