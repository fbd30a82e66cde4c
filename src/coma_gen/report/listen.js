// Steps through the trials of a listening test. The players are those of report.js.

const test = document.querySelector("#main");
const trials = [...document.querySelectorAll(".trial")];
const [welcome, done, listener, save] = ["#welcome", "#done", "#listener", "#save"].map((id) => test.querySelector(id));
const storageKey = `coma-gen listen ${test.dataset.page}`;
let state = { listener: "", answers: {} };
let shown = welcome;

try {
  state = JSON.parse(localStorage.getItem(storageKey)) ?? state;
} catch { /* some browsers have no storage for file: pages; then the state lasts until the page is closed */ }

function store() {
  try {
    localStorage.setItem(storageKey, JSON.stringify(state));
  } catch { /* as above */ }
}

/** Seconds of a continuation that were played, regardless of seeking. */
function playedSeconds(card) {
  const { played } = card.querySelector("audio");
  const splice = Number(card.dataset.splice);
  let seconds = 0;
  for (let part = 0; part < played.length; part++) {
    seconds += Math.max(0, played.end(part) - Math.max(splice, played.start(part)));
  }
  return seconds;
}

const cards = (section) => [...section.querySelectorAll(".card")];

/** Enables the answers of a trial once enough of both continuations was played, or if it was answered before. */
function updateChoices(section) {
  const answered = state.answers[section.dataset.trial];
  const enough = answered || cards(section).every((card) => playedSeconds(card) >= Number(test.dataset.least));
  section.querySelector("fieldset").disabled = !enough;
  section.querySelector(".wait").hidden = Boolean(enough);
  for (const button of section.querySelectorAll("[data-choice]")) {
    const { choice, clearly } = button.dataset;
    const isChosen = answered && answered.choice === choice && answered.clearly === Boolean(clearly);
    button.setAttribute("aria-pressed", Boolean(isChosen));
  }
}

function show(section) {
  for (const audio of document.querySelectorAll("audio")) audio.pause();
  for (const each of [welcome, ...trials, done]) each.hidden = each !== section;
  shown = section;
  if (section === done) prepareDownload();
  else if (section !== welcome) updateChoices(section);
  section.querySelector("h2, input")?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

/** The first unanswered trial, or the last section. */
const next = () => trials.find((section) => !state.answers[section.dataset.trial]) ?? done;

function answer(section, button) {
  const { choice, clearly } = button.dataset;
  const before = state.answers[section.dataset.trial];
  const seconds = cards(section).map((card) => Math.round(playedSeconds(card) * 10) / 10);
  state.answers[section.dataset.trial] = {
    trial: Number(section.dataset.trial),
    choice,
    clearly: Boolean(clearly),
    heard: before ? seconds.map((each, side) => Math.max(each, before.heard[side])) : seconds,
  };
  store();
  show(next());
}

/** Prepares the download of the answers. */
function prepareDownload() {
  const content = {
    kind: test.dataset.kind,
    page: test.dataset.page,
    listener: state.listener,
    answers: trials.map((section) => state.answers[section.dataset.trial]),
  };
  URL.revokeObjectURL(save.href);
  save.href = URL.createObjectURL(new Blob([`${JSON.stringify(content, null, 1)}\n`], { type: "application/json" }));
  const name = state.listener.replace(/[^\p{L}\p{N}_-]+/gu, "-").replace(/^-+|-+$/g, "");
  save.download = `answers-${name || "listener"}.json`;
}

for (const section of trials) {
  for (const card of cards(section)) {
    for (const event of ["timeupdate", "pause", "ended"]) {
      card.querySelector("audio").addEventListener(event, () => updateChoices(section));
    }
  }
  for (const button of section.querySelectorAll("[data-choice]")) {
    button.addEventListener("click", () => answer(section, button));
  }
}
for (const back of document.querySelectorAll(".back")) {
  back.addEventListener("click", () => show(trials[(shown === done ? trials.length : trials.indexOf(shown)) - 1]));
}
test.querySelector("#start").addEventListener("click", () => {
  state.listener = listener.value.trim();
  store();
  show(next());
});
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.repeat || !trials.includes(shown)) return;
  const key = event.key.toLowerCase();
  const side = ["a", "b"].indexOf(key);
  if (side >= 0) cards(shown)[side].querySelector(".toggle").click();
  if (/^[1-4]$/.test(key)) shown.querySelectorAll("[data-choice]")[Number(key) - 1].click(); // no effect while disabled
});
listener.addEventListener("keydown", (event) => event.key === "Enter" && test.querySelector("#start").click());
listener.value = state.listener;
show(welcome);
