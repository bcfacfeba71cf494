// Value as colour. Both ramps run evenly in lightness, so they read without colour vision and in grey; the higher
// the value, the stronger it stands against the page.

const RAMPS = {
  light: ["#e6cf98", "#aecb98", "#5fb3a4", "#1f8296", "#173f78"],
  dark: ["#5d5784", "#3f6c9c", "#2f9196", "#7cc782", "#f5e58b"],
};
const STEPS = 48;
const made = {};

function rgb(hex) {
  return [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
}

function ramp(theme) {
  made[theme] ??= Array.from({ length: STEPS + 1 }, (_, i) => {
    const stops = RAMPS[theme];
    const at = (i / STEPS) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(at));
    const [from, to] = [rgb(stops[low]), rgb(stops[low + 1])];
    return `rgb(${from.map((part, j) => Math.round(part + (to[j] - part) * (at - low))).join(" ")})`;
  });
  return made[theme];
}

/** The palette of the theme that holds now: the page's tokens, and `of(value)` for values in [0, 1]. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const token = (name) => style.getPropertyValue(`--${name}`).trim();
  const theme = style.colorScheme.includes("dark") ? "dark" : "light";
  const colours = ramp(theme);
  return {
    theme,
    colours,
    of: (value) => (value === null || value === undefined ? null : colours[Math.round(STEPS * Math.min(1, Math.max(0, value)))]),
    onValue: (value) => ((theme === "light") === (value ?? 0) > 0.5 ? "#ffffff" : "#11181e"),
    ...Object.fromEntries(["text", "muted", "canvas", "edge", "chosen", "accent", "good", "bad", "warn", "line"].map((name) => [name, token(name)])),
    mono: token("mono"),
  };
}
