"use strict";
// Renews the parts of the page that have changed; without it a reload of the page does.
(() => {
  const main = document.getElementById("main");
  const updated = document.getElementById("updated");
  if (!window.EventSource || !main) return;
  let waiting = false;
  const touched = (part) => part.contains(document.activeElement) && document.activeElement !== document.body
    || [...part.querySelectorAll("input:not([type=hidden]), select")].some((field) =>
      field.tagName === "SELECT" ? field.selectedIndex > 0 : field.value !== field.defaultValue);
  const renew = async () => {
    waiting = false;
    const response = await fetch(main.dataset.here, { redirect: "error" });
    if (!response.ok) return;
    const found = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of found.querySelectorAll("[data-part]")) {
      const old = document.querySelector(`[data-part="${part.dataset.part}"]`);
      if (old && !touched(old) && old.innerHTML !== part.innerHTML) old.replaceWith(part);
    }
    const said = document.getElementById("said");
    // The checks are over: their section can be started again.
    if (said && said.dataset.code === "started" && found.querySelector('[data-part="doctor"] form')) said.remove();
    if (updated) updated.textContent = `${updated.dataset.text} ${new Date().toLocaleTimeString(document.documentElement.lang)}`;
  };
  const source = new EventSource(main.dataset.events);
  source.addEventListener("changed", () => {
    if (waiting || document.hidden) return;
    waiting = true;
    setTimeout(() => renew().catch(() => {}), 300);
  });
})();
