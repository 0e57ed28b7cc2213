// Says a time in the reader's zone, and how far away it is; its title keeps what the server wrote.
(function () {
  "use strict";
  const language = document.documentElement.lang;
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  const steps = [["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const time of document.querySelectorAll("time[data-local]")) {
    const at = new Date(time.dateTime);
    if (isNaN(at)) {
      continue;
    }
    const seconds = (at - Date.now()) / 1000;
    const [unit, size] = steps.find(([, size]) => Math.abs(seconds) >= size) || ["second", 1];
    const local = at.toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
    time.title = time.textContent;
    time.textContent = `${local} (${relative.format(Math.round(seconds / size), unit)})`;
  }
})();
