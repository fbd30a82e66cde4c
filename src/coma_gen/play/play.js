// The main script of the page: choose a file and a splice, generate variants, and continue from one of them.
"use strict";

const $ = (id) => document.getElementById(id);
const MAX_VARIANTS = 4;
/** Prompts of up to the first number of seconds are used whole by default; of longer ones, the last seconds. */
const [MAX_WHOLE_PROMPT, DEFAULT_PROMPT] = [120, 60];
/** The preview plays at most this many seconds, the last ones of the prompt. */
const MAX_PREVIEW = 120;
/** History of prompts, each a variant generated from the one before, and the number of the shown one (from 1). */
const trail = [];
let depth = 0;
const here = () => trail[depth - 1];
let about = null;
let running = null;
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

function showMessage(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
  if (text) $("message").scrollIntoView({ block: "nearest" });
}

function temperatureWords(value) {
  if (value === 1) return "normal predictability";
  return value < 1 ? (value < 0.9 ? "much more predictable" : "more predictable") : value > 1.1 ? "much less predictable" : "less predictable";
}

/** Whether settings that are not chosen follow the prompt. */
const follows = () => Boolean(about.model.conditions.length && here()?.midi && !$("follow").value);

/** Describes the value of a control with the two words of its field, such as "sparser denser". */
function pullWords(value, { id, dataset }) {
  const [less, more] = dataset.pull.split(" ");
  const degree = { 0.5: "a little ", 1: "", 1.5: "much ", 2: "very much " };
  const neutral = follows() && about.model.conditions.includes(id) ? "like the prompt" : "model default";
  return value === 0 ? neutral : degree[Math.abs(value)] + (value < 0 ? less : more);
}

/** Describes the settings of a request. */
function describeRequest(kind, request) {
  if (kind === "express") {
    const lengths = request.keep_lengths ? ["lengths as written"] : [];
    return ["with expression", temperatureWords(request.temperature), timingWords(request.timing), ...lengths];
  }
  const pulls = [...document.querySelectorAll("[data-pull]")].filter(({ id }) => request[id]);
  const words = pulls.map((field) => pullWords(request[field.id], field));
  if (request.follow === false) words.push("independent of the prompt");
  if (request.key) words.push(request.key === "prompt" ? "in the prompt's key" : `in ${request.key}`);
  return [`${request.seconds} s`, temperatureWords(request.temperature), ...words];
}

const timingWords = (value) => (value === 0 ? "exact timing" : `up to ${value} ms early or late`);
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

/** Opens a file of the user. */
async function openFile(file) {
  showMessage("");
  if (file.size > about.limits.max_prompt_bytes) {
    const most = about.limits.max_prompt_bytes.toLocaleString("en");
    return showMessage(`${file.name}: must be a MIDI file of at most ${most} bytes, got ${file.size.toLocaleString("en")}`);
  }
  await openMidi(file.name.slice(-120), new Uint8Array(await file.arrayBuffer()));
}

async function openMidi(name, bytes) {
  let midi = "";
  for (let at = 0; at < bytes.length; at += 9999) midi += btoa(String.fromCharCode(...bytes.subarray(at, at + 9999)));
  try {
    open({ name, midi, ...(await (await ask("/look", { midi, name })).json()) });
  } catch (error) {
    showMessage(error.message);
  }
}

/** Shows a prompt as the first of a new trail, or after `parents` prompts of the current trail. */
function open(prompt, parents = 0) {
  const first = prompt.notes?.length ? prompt.notes[0][0] : 0;
  const place = { ...prompt, first, splice: prompt.end ?? 0, takes: document.createElement("div") };
  place.use = place.splice <= MAX_WHOLE_PROMPT ? null : DEFAULT_PROMPT;
  trail.splice(parents, Infinity, place);
  goTo(parents + 1);
}

/** Goes to a prompt of the trail, or, at 0, to the choice of a file; later prompts remain in the trail. */
function goTo(next) {
  history.pushState({ depth: next }, "");
  show(next);
}

/** Shows a prompt of the trail, and stops the generation that is running for another one. */
function show(next) {
  running?.stopper.abort();
  for (const audio of document.querySelectorAll("audio")) audio.pause();
  showMessage("");
  depth = next;
  const place = here();
  stopPreview();
  $("choose").hidden = Boolean(place);
  $("work").hidden = !place;
  $("lead").hidden = Boolean(place);
  if (!place) return;
  $("title").textContent = place.midi ? place.name : "Unprompted music";
  $("facts").textContent = place.midi ? factsOf(place) : "The model starts without a prompt.";
  $("given").hidden = $("modes").hidden = !place.midi;
  $("key").querySelector("[value=prompt]").disabled = !place.midi;
  if (!place.midi && $("key").value === "prompt") $("key").value = "";
  $("follow-field").hidden = !(place.midi && about.model.conditions.length);
  showSettings();
  showMode();
  $("takes").replaceChildren(place.takes);
  showTrail();
  redraw();
  scrollTo({ top: 0 });
  $("title").focus({ preventScroll: true });
}

function factsOf({ notes, end, drums, endless, outside }) {
  const left = [
    [drums, "of drums ignored"],
    [endless, "without an end ignored"],
    [outside, "out of the model's pitch range"],
  ];
  const words = left.filter(([count]) => count).map(([count, what]) => `${plural(count, "note")} ${what}`);
  return [plural(notes.length, "note"), clock(Math.round(end)), ...words].join(" · ");
}

function showTrail() {
  const parts = trail.map((place, index) => {
    const isHere = place === here();
    const part = document.createElement(isHere ? "span" : "button");
    part.textContent = place.midi ? place.name : "No prompt";
    if (isHere) part.ariaCurrent = "page";
    else part.addEventListener("click", () => goTo(index + 1));
    return part;
  });
  const other = document.createElement("button");
  other.textContent = "Another file";
  other.addEventListener("click", () => goTo(0));
  $("trail").replaceChildren(other, ...parts);
}

/** The mode: without a prompt, only "continue" is possible. */
const modeOf = (place) => (place.midi ? document.querySelector("input[name=mode]:checked").value : "continue");

const HINTS = {
  continue: "Click the piano roll where the new music should begin.",
  express: "All pitches stay. The model chooses how loud and how long each note is, and its exact timing.",
};

function showMode() {
  const place = here();
  const mode = modeOf(place);
  for (const kind of ["continue", "express"]) {
    for (const part of document.querySelectorAll(`.of-${kind}`)) part.hidden = mode !== kind;
  }
  $("use-field").hidden ||= !place.midi;
  $("hint").textContent = HINTS[mode];
  $("go").textContent = { continue: "Continue", express: "Add expression" }[mode];
  $("roll").classList.toggle("still", mode === "express");
  $("roll").ariaDisabled = mode === "express";
  stopPreview();
  if (place.midi) showChoice();
}

/** The part of the file that is used as the prompt: [from, to] in seconds. */
function usedOf(place) {
  if (modeOf(place) === "express") return [0, place.end];
  const lastBefore = place.notes.findLast((note) => note[0] < place.splice)?.[0] ?? 0;
  const from = place.use === null ? 0 : Math.max(0, Math.min(place.splice - place.use, lastBefore));
  return [Math.floor(100 * from) / 100, place.splice];
}

function showChoice() {
  const place = here();
  const whole = Math.ceil(place.splice - place.first);
  $("use").max = Math.max(2, whole);
  $("use").value = place.use ?? $("use").max;
  const used = usedOf(place);
  const atEnd = used[1] >= place.end;
  const isWhole = modeOf(place) === "express";
  $("use-text").textContent = place.use === null ? "all before the line" : `the last ${place.use} s`;
  $("choice").textContent = isWhole ? "" : `The new music begins ${atEnd ? "at the end" : `at ${clock(place.splice)}`}.`;
  const music = { notes: place.notes, seconds: place.end, splice: isWhole ? place.end : place.splice, used: [used[0], atEnd ? Infinity : used[1]] };
  keepDrawn($("roll"), () => music);
  const values = { now: Math.floor(place.splice), max: Math.floor(place.end), text: `${clock(place.splice)} of ${clock(place.end)}` };
  for (const [name, value] of Object.entries(values)) $("roll").setAttribute(`aria-value${name}`, value);
}

function moveSplice(seconds) {
  const place = here();
  if (modeOf(place) === "express") return;
  stopPreview();
  const near = Math.round(10 * seconds) / 10;
  place.splice = near > place.last ? place.end : Math.max(near, Math.ceil(10 * place.first + 0.5) / 10);
  if (place.use !== null && place.use >= place.splice - place.first) place.use = null;
  showChoice();
}

/** The settings as the body of a request. */
function requestOf(place) {
  const typed = $("seed").value.trim();
  const request = {
    num: Number(document.querySelector("input[name=num]:checked").value),
    temperature: Number($("temperature").value),
    seed: typed ? Number(typed) : Math.floor(Math.random() * 1e6),
  };
  if (modeOf(place) === "express") {
    return { midi: place.midi, ...request, timing: Number($("timing").value), keep_lengths: $("lengths").value === "keep" };
  }
  request.seconds = Number($("seconds").value);
  for (const { id, value } of document.querySelectorAll("[data-pull]")) if (Number(value)) request[id] = Number(value);
  if ($("key").value) request.key = $("key").value;
  if (!place.midi) return request;
  if (about.model.conditions.length && !follows()) request.follow = false;
  const [from, to] = usedOf(place);
  const begins = place.use === null ? place.first : (place.notes.find((note) => note[0] >= from)?.[0] ?? from);
  if (place.use !== null) request.from_second = from;
  if (to < place.end) request.prompt_seconds = Math.max(0.01, Math.round(1e4 * (to - begins)) / 1e4);
  return { midi: place.midi, ...request };
}

/** Generates a take for the shown prompt. */
async function generate() {
  const place = here();
  showMessage("");
  const take = new Take(modeOf(place), place.midi ? place.name : "", requestOf(place), (variant) => keep(variant));
  running?.stopper.abort();
  running = take;
  $("go").disabled = true;
  place.takes.prepend(take.element);
  take.element.scrollIntoView({ block: "nearest" });
  try {
    await take.run();
    $("status").textContent = `${plural(take.request.num, "variant")}, ready to play`;
    release(take);
    await take.loadSounds();
  } catch (error) {
    if (!take.commandLine) take.element.remove();
    if (error.name === "AbortError") $("status").textContent = "Stopped";
    else showMessage(error.message);
  }
  release(take);
}

/** Enables the next request. */
function release(take) {
  if (running !== take) return;
  running = null;
  $("go").disabled = false;
}

/** Continues from a variant: its piece becomes the next prompt of the trail. */
async function keep(variant) {
  const parents = depth;
  try {
    const found = await (await ask("/look", variant.file)).json();
    open({ ...variant.file, ...found }, parents);
  } catch (error) {
    showMessage(error.message);
  }
}
