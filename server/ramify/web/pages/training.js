// Releases: the served one, the figures of their gates, and accuracy from round to round.

import { get } from "../lib/api.js";
import { chart } from "../lib/chart.js";
import { el, replace } from "../lib/dom.js";
import { accuracies, flat, watched } from "../lib/figures.js";
import { NONE, exactly, percent, unit, when, whole } from "../lib/format.js";
import { failure, frame } from "../lib/shell.js";

const main = frame();
const MOST_SERIES = 3;

async function show() {
  try {
    draw(await get("/v1/releases"));
  } catch (error) {
    replace(main, failure(error));
  }
}

function draw(reply) {
  const releases = [...reply.data].sort((a, b) => a.id.localeCompare(b.id));
  const now = releases.find((release) => release.id === reply.active);
  replace(main, el("div", { class: "page" },
    el("header", {}, el("h1", {}, "Training"), el("button", { type: "button", onclick: show }, "Look again")),
    el("div", { class: "cards" },
      card("Served now", el("code", {}, reply.active ?? NONE), now?.training_step ? `after ${whole(now.training_step)} steps` : "the base release"),
      card("Before it", el("code", {}, reply.previous ?? NONE), reply.previous ? "what a rollback goes back to" : "nothing was served before"),
      card("Releases", whole(releases.length), counts(releases)),
      card("Last change", last(reply.activations), reply.activations[0] ? `${exactly(reply.activations[0].at)}` : "")),
    accuracy(releases, reply),
    training(releases),
    table(releases),
    history(reply.activations)));
}

function card(name, value, note) {
  return el("div", { class: "card" }, el("h3", {}, name), el("strong", {}, value), el("span", { class: "note" }, note));
}

function counts(releases) {
  const states = Object.groupBy ? Object.groupBy(releases, (release) => release.state) : {};
  return Object.entries(states).map(([state, some]) => `${some.length} ${state}`).join(", ");
}

function last(activations) {
  if (!activations.length) return NONE;
  return rolledBack(activations[0]) ? "rolled back" : "activated";
}

const rolledBack = ({ kind, note }) => kind === "rollback" || (kind === "automatic" && note.includes("failed"));

function figuresOf(release) {
  const gate = accuracies(release.figures);
  return gate.length ? gate : accuracies(release.metrics);
}

function accuracy(releases, reply) {
  const rounds = releases.map((release) => ({ label: release.id, served: release.id === reply.active }));
  const series = new Map();
  releases.forEach((release, round) => {
    for (const { name, ...figure } of figuresOf(release)) {
      if (!series.has(name)) series.set(name, []);
      series.get(name).push({ round, ...figure });
    }
  });
  const drawn = [...series].slice(0, MOST_SERIES).map(([name, points]) => ({ name, points }));
  const rollbacks = reply.activations.filter(rolledBack).map((activation) => releases.findIndex((release) => release.id === activation.release)).filter((i) => i >= 0);
  return el("section", { class: "card chart", "aria-label": "Accuracy over rounds" },
    el("h2", {}, "Accuracy over rounds"),
    drawn.length
      ? [chart(rounds, drawn, rollbacks), el("p", { class: "note" }, "A filled point is the release that is served now. A dashed line is a release that was rolled back to. Bands are the gate's intervals.")]
      : el("div", { class: "empty" }, el("strong", {}, "No gate has recorded an accuracy yet"), "Run the trainer: each round's gate writes its figures here."));
}

const WRITTEN = { number: unit, share: percent, count: whole };

/** The figures of each round's training that warn before an accuracy does, the newest round first. */
function training(releases) {
  const rounds = [...releases].reverse().filter((release) => release.figures?.training);
  const columns = watched(rounds);
  if (!columns.length) return false;
  return el("section", { class: "card scroll", "aria-label": "Training" },
    el("h2", {}, "Training, round by round"),
    el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Release"), columns.map(({ title }) => el("th", { scope: "col", class: "number" }, title)))),
      el("tbody", {}, rounds.map((release, i) => el("tr", { class: release.active ? "active" : false },
        el("td", {}, el("code", {}, release.id)),
        columns.map(({ kind, values }) => el("td", { class: "number" }, values[i] === null ? NONE : WRITTEN[kind](values[i]))))))));
}

function table(releases) {
  return el("section", { class: "card scroll", "aria-label": "Releases" }, el("table", {},
    el("thead", {}, el("tr", {}, ["Release", "State", "Gate", "Parent", "Value", "Step", "Made", "Figures"].map((name) => el("th", { scope: "col", class: name === "Step" ? "number" : false }, name)))),
    el("tbody", {}, [...releases].reverse().map(row))));
}

function row(release) {
  const gate = figuresOf(release).slice(0, MOST_SERIES);
  const all = [...flat(release.figures), ...flat(release.metrics)];
  const tone = { promoted: "good", rejected: "bad", failed: "bad", candidate: "warn" }[release.state] ?? "muted";
  return el("tr", { class: release.active ? "active" : false },
    el("td", {}, el("code", {}, release.id), release.active ? el("strong", {}, " served") : false, release.on_disk === false ? el("span", { class: "muted" }, " not on disk") : false),
    el("td", {}, el("span", { class: tone }, release.state)),
    el("td", {}, gate.length ? gate.map(({ name, mean }) => el("div", {}, `${name} ${percent(mean)}`)) : NONE),
    el("td", {}, release.parent ? el("code", {}, release.parent) : NONE),
    el("td", {}, { model: "model", trunk: "head on the trunk" }[release.value] ?? NONE),
    el("td", { class: "number" }, whole(release.training_step)),
    el("td", {}, made(release.created)),
    el("td", {}, all.length ? el("details", {}, el("summary", {}, `${all.length} figures`), el("pre", {}, all.map(([name, value]) => `${name}  ${value}`).join("\n"))) : NONE));
}

/** Manifests write the time as text, the log as Unix seconds. */
function made(created) {
  const unix = typeof created === "number" ? created : Date.parse(created) / 1000;
  return Number.isFinite(unix) && unix > 0 ? el("span", { title: exactly(unix) }, when(unix)) : NONE;
}

function history(activations) {
  if (!activations.length) return false;
  return el("section", { class: "card scroll", "aria-label": "What was served when" }, el("table", {},
    el("thead", {}, el("tr", {}, ["When", "Release", "Change", "Note"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, activations.slice(0, 50).map((activation) => el("tr", {},
      el("td", {}, when(activation.at)),
      el("td", {}, el("code", {}, activation.release)),
      el("td", {}, rolledBack(activation) ? el("span", { class: "bad" }, "↩ rolled back to") : el("span", { class: "good" }, "→ activated")),
      el("td", {}, activation.note || NONE))))));
}

show();
