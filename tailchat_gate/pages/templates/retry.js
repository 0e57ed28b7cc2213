// Opens the page again, later each time, while somebody has it before them; it gives up in the end.
(function () {
  "use strict";
  const key = `retry ${location.href}`;
  const [before, at] = (sessionStorage.getItem(key) || "0 0").split(" ").map(Number);
  // What is older is of another time that the tool was away.
  const tries = Date.now() - at < 180000 ? before : 0;
  if (tries >= 12) {
    return;
  }
  document.getElementById("retry").hidden = false;
  setTimeout(function again() {
    if (document.visibilityState !== "visible") {
      document.addEventListener("visibilitychange", again, { once: true });
      return;
    }
    sessionStorage.setItem(key, `${tries + 1} ${Date.now()}`);
    location.reload();
  }, Math.min(10000 * 1.4 ** tries, 60000));
})();
