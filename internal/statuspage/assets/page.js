// Updates the page: the node sends sections that have changed as server-sent events, and the time at least every second. When
// the node accepts no further stream, the script loads the whole page again from time to time.
"use strict";

const reloadPause = 10000; // milliseconds between loads without a stream
const fresh = 3000; // up to this age, data is shown as live
const late = 6000; // from this age on, a stream is not trusted any more

const connection = document.getElementById("connection");
const age = document.getElementById("age");
let received = Date.now(); // when data came last
let pause = 0; // the time that is expected between data
let lost = false; // the connection is known to be broken

document.documentElement.classList.add("js");

// morph makes a node of the page equal to a new one, and changes only what differs. So the focus, a selection, scroll positions
// and what the reader has unfolded stay.
function morph(node, wanted) {
  if (node.nodeName !== wanted.nodeName) {
    node.replaceWith(wanted);
    return;
  }
  if (node.nodeType === Node.TEXT_NODE) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return;
  }
  for (const { name, value } of wanted.attributes) if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  for (const { name } of [...node.attributes]) {
    if (!wanted.hasAttribute(name) && !(node.nodeName === "DETAILS" && name === "open")) node.removeAttribute(name);
  }
  morphChildren(node, wanted);
}

function morphChildren(node, wanted) {
  const present = [...node.childNodes];
  const next = [...wanted.childNodes];
  next.forEach((child, i) => (i < present.length ? morph(present[i], child) : node.append(child)));
  present.slice(next.length).forEach((child) => child.remove());
}

// update replaces the content of a section.
function update(id, html) {
  const section = document.getElementById(id);
  if (!section) return;
  const template = document.createElement("template");
  template.innerHTML = html;
  morphChildren(section, template.content);
  received = Date.now();
  lost = false;
}

// showAge shows how old the data is, and warns when nothing came for too long.
function showAge() {
  const passed = Date.now() - received;
  const stale = lost || passed > 2 * pause + late;
  age.textContent = !stale && passed <= fresh ? "Live," : `Updated ${Math.round(passed / 1000)} s ago,`;
  document.documentElement.classList.toggle("stale", stale);
  if (stale === !connection.hidden) return;
  connection.hidden = !stale;
  const time = document.getElementById("time").textContent;
  connection.textContent = stale ? `No connection to the node. This page shows how it was at ${time}. Retrying.` : "";
}

// follow opens the stream of events.
function follow() {
  const events = new EventSource("/events");
  events.addEventListener("section", (e) => {
    const { id, html } = JSON.parse(e.data);
    pause = 0;
    update(id, html);
    showAge();
  });
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) {
      pause = reloadPause;
      setTimeout(load, reloadPause);
    } else {
      lost = true;
    }
    showAge();
  });
}

// load loads the page once, then tries to open a stream again.
async function load() {
  try {
    const response = await fetch("/");
    if (!response.ok) throw new Error(response.statusText);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const section of page.querySelectorAll("[data-section]")) update(section.id, section.innerHTML);
  } catch {
    lost = true;
  }
  showAge();
  setTimeout(follow, reloadPause);
}

// copy puts the text of an element on the clipboard. Pages that came without TLS from another host have no access to it, but
// can copy a selection.
async function copy(element) {
  if (navigator.clipboard) return navigator.clipboard.writeText(element.textContent);
  getSelection().selectAllChildren(element);
  if (!document.execCommand("copy")) throw new Error("the browser does not copy");
}

document.addEventListener("click", async (e) => {
  const button = e.target.closest("button.copy");
  if (!button) return;
  const label = button.firstElementChild;
  try {
    await copy(button.parentElement.querySelector("code"));
    label.textContent = "Copied";
  } catch {
    label.textContent = "Not copied";
  }
  setTimeout(() => { label.textContent = "Copy"; }, 2000);
});

setInterval(showAge, 1000);
follow();
