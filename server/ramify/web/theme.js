// Runs before the first paint, so that a chosen theme never flashes the other one.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("ramify.theme");
  } catch {
    // Storage may be forbidden; the system's own theme then holds.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
