// Fetches the page every few seconds and changes what is different, so that scrolling, focus, what is open and what
// is selected stay as they are. Only text that the server has escaped comes in: nothing of it is run.
(() => {
  "use strict";
  const EVERY = 5000, PATIENCE = 10000;
  const by = id => document.getElementById(id);
  const pause = by("pause");
  const ROLES = {TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell"};
  let timer = 0, asking = false, paused = false;

  // A narrow page lays the table out in blocks, and some browsers then forget that it is one.
  function name_roles() {
    for (const e of document.querySelectorAll("table,thead,tbody,tr,td")) e.setAttribute("role", ROLES[e.tagName]);
    for (const e of document.querySelectorAll("th")) e.setAttribute("role", e.scope === "row" ? "rowheader" : "columnheader");
  }

  // Its reader decides about `open`, and this script about `role`.
  const OURS = ["open", "role"];
  function selected(node) {
    const selection = getSelection();
    return selection && !selection.isCollapsed && selection.containsNode(node, true);
  }
  function matches(a, b) {
    return a.nodeName === b.nodeName && (a.id || "") === (b.id || "");
  }
  // Of nodes in their new order, as many as can stay where they are while the others move around them.
  function staying(nodes, places) {
    const tails = [], before = new Map(), stay = new Set();
    for (const node of nodes) {
      const found = tails.findIndex(tail => places.get(tail) > places.get(node));
      const length = found < 0 ? tails.length : found;
      before.set(node, tails[length - 1]);
      tails[length] = node;
    }
    for (let node = tails[tails.length - 1]; node; node = before.get(node)) stay.add(node);
    return stay;
  }
  function move(parent, node, before) {
    if (parent.moveBefore) return parent.moveBefore(node, before);
    const focused = node.contains(document.activeElement) ? document.activeElement : null;
    parent.insertBefore(node, before);
    if (focused) focused.focus({preventScroll: true});
  }
  function morph(have, want) {
    if (have.nodeType !== 1) {
      if (have.data !== want.data && !selected(have)) have.data = want.data;
      return;
    }
    if ("keep" in have.dataset) return;
    for (const a of [...want.attributes])
      if (!OURS.includes(a.name) && have.getAttribute(a.name) !== a.value) have.setAttribute(a.name, a.value);
    for (const a of [...have.attributes])
      if (!OURS.includes(a.name) && !want.hasAttribute(a.name)) have.removeAttribute(a.name);
    const wanted = [...want.childNodes], ids = new Set(wanted.map(node => node.id).filter(Boolean));
    const known = new Map([...have.children].filter(node => node.id).map(node => [node.id, node]));
    for (const [id, node] of known) if (!ids.has(id)) node.remove();
    const places = new Map([...have.childNodes].map((node, place) => [node, place]));
    const stay = staying(wanted.map(node => node.id && known.get(node.id)).filter(Boolean), places);
    let at = have.firstChild;
    for (const node of wanted) {
      const same = node.id && known.get(node.id);
      while (at && at !== same && (at.id ? !stay.has(at) : stay.has(same))) {
        const next = at.nextSibling;
        if (!at.id) at.remove();
        at = next;
      }
      const found = node.id ? same : at && matches(at, node) ? at : null;
      if (!found || found.nodeName !== node.nodeName) {
        have.insertBefore(document.importNode(node, true), at);
        continue;
      }
      if (found === at) at = at.nextSibling; else move(have, found, at);
      morph(found, node);
    }
    while (at) { const next = at.nextSibling; at.remove(); at = next; }
  }

  // What is being read stays where it is on the screen, whatever grows above it.
  function anchor() {
    if (scrollY === 0) return null;
    const visible = e => { const r = e.getBoundingClientRect(); return r.bottom > 0 && r.top < innerHeight; };
    const focused = document.activeElement;
    if (focused && focused !== document.body && visible(focused)) return focused;
    return [...document.querySelectorAll("tbody[id],article,section,footer")].filter(visible)
      .sort((a, b) => Math.abs(a.getBoundingClientRect().top) - Math.abs(b.getBoundingClientRect().top))[0];
  }
  function show(next) {
    const held = anchor(), top = held && held.getBoundingClientRect().top;
    document.title = next.title;
    by("icon").href = next.getElementById("icon").href;
    for (const part of ["header", "main", "footer"]) morph(document.querySelector(part), next.querySelector(part));
    name_roles();
    if (held && held.isConnected) scrollBy({top: held.getBoundingClientRect().top - top, behavior: "instant"});
  }
  function gone(is) {
    const said = by("gone");
    if (is === !said.hidden) return;
    document.documentElement.classList.toggle("gone", is);
    said.textContent = is ? `The agent cannot be reached any more. What is shown is as of ${by("asof").textContent}.` : "";
    said.hidden = !is;
    if (is) document.title = `unreachable · ${document.title}`;
  }

  async function refresh() {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    try {
      const answer = await fetch("", {cache: "no-store", redirect: "error", signal: AbortSignal.timeout(PATIENCE)});
      const next = new DOMParser().parseFromString(answer.ok ? await answer.text() : "", "text/html");
      const version = next.documentElement.dataset.version;
      if (!version) throw new Error("not the page of an agent");
      if (version !== document.documentElement.dataset.version) return location.reload();
      if (!paused) { gone(false); show(next); }
    } catch {
      if (!paused) gone(true);
    } finally {
      asking = false;
      plan();
    }
  }
  function plan() {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(refresh, EVERY);
  }

  document.addEventListener("visibilitychange", () => document.hidden || paused ? clearTimeout(timer) : refresh());
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
    document.documentElement.classList.toggle("paused", paused);
    paused ? clearTimeout(timer) : refresh();
  });
  pause.hidden = false;
  document.documentElement.classList.add("scripted");
  name_roles();
  plan();
})();
