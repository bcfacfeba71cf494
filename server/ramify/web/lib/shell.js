// Parts of every page: the bar, the theme, the API key, the help, and the message when something goes wrong.

import { Refusal, get, key } from "./api.js";
import { el, icon, iconButton, replace } from "./dom.js";

const PAGES = [
  ["trees", "/", "Trees"],
  ["search", "/search", "New search"],
  ["training", "/training", "Training"],
];

/** Build the page's frame; `help` lists its keys as [keys, what they do]. Returns the element for the page's own content. */
export function frame(help = []) {
  const here = document.body.dataset.page;
  const main = el("main", { id: "main", tabindex: "-1" });
  const release = el("span", { class: "serving", title: "The model and the release that this server has" });
  document.body.replaceChildren(
    el("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); main.focus(); } }, "Skip to content"),
    el("header", { class: "bar" },
      el("a", { class: "brand", href: "/", "aria-label": "Ramify: all trees" }, el("img", { src: "/static/icon.svg", alt: "", width: 20, height: 20 }), "Ramify"),
      el("nav", { "aria-label": "Pages" }, PAGES.map(([name, href, label]) =>
        el("a", { href, "aria-current": name === here || (name === "trees" && here === "tree") ? "page" : false }, label))),
      release,
      iconButton("key", "API key", askKey),
      themeButton(),
      iconButton("help", "Keys and help", () => showHelp(help), { "data-help": true }),
    ),
    main,
    el("div", { id: "said", class: "hidden", role: "status", "aria-live": "polite" }),
  );
  document.addEventListener("keydown", (event) => {
    if (event.key === "?" && !typing(event)) showHelp(help);
  });
  get("/version").then((version) => replace(release, el("span", {}, version.model), el("code", {}, version.release))).catch(() => {});
  return main;
}

/** True if a key press is text going into a field, and so no command. */
export function typing(event) {
  const at = event.target;
  return event.ctrlKey || event.metaKey || event.altKey || at.isContentEditable || (at.matches?.("input:not([type=range]), textarea, select") ?? false);
}

/** Announce something to screen readers. */
export function say(text) {
  const region = document.getElementById("said");
  if (region) region.textContent = text;
}

function dark() {
  return document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function themeButton() {
  const button = el("button", { type: "button", class: "icon-button" });
  const show = () => {
    const label = dark() ? "Light theme" : "Dark theme";
    button.setAttribute("aria-label", label);
    button.title = label;
    replace(button, icon(dark() ? "sun" : "moon"));
  };
  const changed = () => {
    show();
    dispatchEvent(new Event("themechange"));
  };
  button.addEventListener("click", () => {
    const theme = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("ramify.theme", theme);
    } catch {
      // Not remembered then; it holds for this page.
    }
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  show();
  return button;
}

export function dialog(title, ...content) {
  const shown = el("dialog", { "aria-label": title, onclose: () => shown.remove() },
    el("header", {}, el("h2", {}, title), iconButton("close", "Close", () => shown.close())),
    ...content);
  document.body.append(shown);
  shown.showModal();
  return shown;
}

export function askKey() {
  const field = el("input", { type: "password", autocomplete: "off", spellcheck: "false", value: key.get(), "aria-label": "API key" });
  const shown = dialog("API key",
    el("p", {}, "Servers without keys need none. The key stays in this tab and is forgotten with it."),
    el("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); key.set(field.value.trim()); shown.close(); location.reload(); } },
      field,
      el("div", { class: "row end" },
        el("button", { type: "button", onclick: () => { key.set(""); shown.close(); location.reload(); } }, "Forget it"),
        el("button", { type: "submit", class: "primary" }, "Use this key"))));
  field.focus();
}

const EVERYWHERE = [["?", "this help"], ["Esc", "close what is open"]];

function showHelp(help) {
  if (document.querySelector("dialog[open]")) return;
  dialog("Keys", el("dl", { class: "keys" }, [...help, ...EVERYWHERE].map(([keys, what]) => [
    el("dt", {}, keys.split(" ").map((k) => el("kbd", {}, k))),
    el("dd", {}, what),
  ])));
}

/** Show an error and the way on. */
export function failure(error) {
  if (!(error instanceof Refusal)) console.error(error);
  const keyed = error.status === 401 || error.status === 403;
  return el("div", { class: "failure", role: "alert" },
    el("strong", {}, keyed ? "This server wants an API key" : error.status === 404 ? "Not found" : "That did not work"),
    el("p", {}, error.message),
    keyed && el("button", { type: "button", class: "primary", onclick: askKey }, "Enter a key"));
}
