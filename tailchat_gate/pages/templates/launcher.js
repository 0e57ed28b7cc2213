// Leaves the tiles that have every word of the box, as the server does after Enter.
const box = document.getElementById("q");
const tiles = document.querySelectorAll("#tiles > li");
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\s+/);
  for (const tile of tiles) {
    const text = tile.textContent.toLowerCase();
    tile.hidden = !words.every((word) => text.includes(word));
  }
});
