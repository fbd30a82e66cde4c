// Event handlers of the controls, the keyboard, and drag and drop.
"use strict";

function placeUnder(event) {
  const box = $("roll").getBoundingClientRect();
  const roll = JSON.parse($("roll").dataset.roll);
  return secondsAt(roll, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
}

function showSettings() {
  $("seconds-text").textContent = `${$("seconds").value} s`;
  $("temperature-text").textContent = temperatureWords(Number($("temperature").value));
  $("timing-text").textContent = timingWords(Number($("timing").value));
  for (const field of document.querySelectorAll("[data-pull]")) {
    $(`${field.id}-text`).textContent = pullWords(Number(field.value), field);
  }
  for (const field of SLIDERS) field.ariaValueText = $(`${field.id}-text`).textContent;
}

const SLIDERS = document.querySelectorAll("#settings input[type=range]:not(#use)");

function offerKeys() {
  for (const mode of ["major", "minor"]) {
    for (const tonic of ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]) {
      $("key").append(new Option(`${tonic} ${mode}`));
    }
  }
}

function offerVariants(most) {
  for (let count = 1; count <= most; count++) {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "num", value: count });
    radio.checked = count === Math.min(4, most);
    const text = Object.assign(document.createElement("span"), { textContent: count });
    label.append(radio, text);
    $("variants").append(label);
  }
}

/** Space pauses; or it plays the last played sound, else the newest take, else the prompt. Not in a focused control. */
function playByKey(event) {
  if (event.key !== " " || event.defaultPrevented || event.target !== document.body) return;
  event.preventDefault();
  const players = [...document.querySelectorAll("#takes audio[src]")];
  const playing = [...players, preview.audio].find((audio) => !audio.paused);
  const next = players.includes(lastPlayed) ? lastPlayed : players[0];
  if (playing) playing.pause();
  else if (next && lastPlayed !== preview.audio) next.play().catch(() => {});
  else if (here()?.midi) togglePreview();
}

let lastPlayed = null;
document.addEventListener("play", (event) => (lastPlayed = event.target), true);
document.addEventListener("keydown", playByKey);

$("pick").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) openFile($("file").files[0]);
  $("file").value = "";
});
$("nothing").addEventListener("click", () => open({ name: "", midi: null }));
for (const button of document.querySelectorAll("[data-prompt]")) {
  button.addEventListener("click", async () => {
    const name = `${button.dataset.prompt}.mid`;
    showMessage("");
    await openMidi(name, new Uint8Array(await (await fetch(`/prompts/${name}`)).arrayBuffer()));
  });
}
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind !== "drop") return;
    const [file] = event.dataTransfer.files;
    if (file) openFile(file);
    else showMessage("This is not a file.");
  });
}

$("roll").addEventListener("pointerdown", (event) => {
  $("roll").setPointerCapture(event.pointerId);
  moveSplice(placeUnder(event));
});
$("roll").addEventListener("pointermove", (event) => event.buttons && moveSplice(placeUnder(event)));
$("roll").addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const seconds = seekByKey(event.key, here().splice, here().end);
  if (event.key === " ") togglePreview();
  else if (seconds === null) return;
  else moveSplice(seconds);
  event.preventDefault();
});
$("use").addEventListener("input", () => {
  stopPreview();
  here().use = $("use").value === $("use").max ? null : Number($("use").value);
  showChoice();
});
$("hear").addEventListener("click", togglePreview);
for (const field of [...SLIDERS, $("follow")]) field.addEventListener("input", showSettings);
for (const radio of document.querySelectorAll("input[name=mode]")) radio.addEventListener("change", showMode);
$("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
addEventListener("popstate", (event) => {
  show(Math.min(event.state?.depth ?? 0, trail.length));
});

async function start() {
  history.replaceState({ depth: 0 }, "");
  about = await (await fetch("/about")).json();
  const { name, digest, parameters } = about.model;
  $("model").textContent = `· ${name}, ${(parameters / 1e6).toFixed(1)}M parameters`;
  $("model").title = digest;
  $("seconds").max = Math.min(120, about.limits.max_seconds);
  $("seconds").min = Math.min(5, about.limits.max_seconds);
  $("polyphony-field").hidden = !about.model.conditions.includes("polyphony");
  offerKeys();
  offerVariants(Math.min(MAX_VARIANTS, about.limits.max_pieces));
  showSettings();
  document.documentElement.dataset.ready = "";
}

start().catch(() => showMessage("The server does not answer. Is `coma-gen play` still running?"));
