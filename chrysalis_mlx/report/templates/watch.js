"use strict";
// Asks the server whether the run has changed, and takes over the new content; what the reader opened stays open.
(() => {
  const pause = 3000; // milliseconds
  const live = document.getElementById("live");
  let known = null;

  const openPlaces = () => new Set([...document.querySelectorAll("details")].map((box, i) => (box.open ? i : -1)));

  async function refresh(now) {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const before = document.getElementById("content");
    const after = page.getElementById("content");
    const boxes = after.querySelectorAll("details");
    // While a run trains no section comes or goes; when one does, the page opens as it is written.
    if (boxes.length === before.querySelectorAll("details").length) {
      const open = openPlaces();
      boxes.forEach((box, i) => { box.open = open.has(i); });
    }
    before.replaceWith(after);
    document.title = page.title;
    known = now;
    live.textContent = "live, as of " + new Date().toLocaleTimeString();
  }

  async function look() {
    try {
      if (!document.hidden) {
        const answer = await fetch("/state", { cache: "no-store" });
        if (!answer.ok) throw new Error(answer.statusText);
        const now = await answer.text();
        if (known === null) known = document.getElementById("content").dataset.state;
        if (now !== known) await refresh(now);
        live.classList.remove("lost");
      }
    } catch {
      live.textContent = "the server does not answer";
      live.classList.add("lost");
    }
    window.setTimeout(look, pause);
  }

  window.setTimeout(look, pause);
})();
