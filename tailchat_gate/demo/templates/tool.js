"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const add = (where, text) => {
    const lines = (where.textContent + text + "\n").split("\n");
    where.textContent = lines.slice(-50).join("\n");
    where.scrollTop = where.scrollHeight;
  };
  const tell = (text, mood) => {
    at("ws-state").textContent = text;
    at("ws-state").className = mood;
  };

  tell("Connecting…", "quiet");
  const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/ws");
  socket.addEventListener("open", () => {
    tell("Connected", "good");
    socket.send("hello");
  });
  socket.addEventListener("message", (event) => add(at("ws-log"), "echo: " + event.data));
  socket.addEventListener("close", (event) => tell(`Closed (${event.code}) ${event.reason}`, "bad"));
  at("ws-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (socket.readyState === WebSocket.OPEN) {
      socket.send(at("ws-text").value);
    }
  });

  const events = new EventSource("/events");
  events.addEventListener("message", (event) => add(at("events"), event.data));
})();
