// Audio players with a playhead on the piano roll, for the report, the listening test and `coma-gen play`.
// Without this script each sample has the browser's own controls.
"use strict";

/** Key -> seconds to seek by. */
const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };

const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** Formats seconds as minutes and seconds, such as 1:07. */
function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** Position of a time in a piano roll: its line, and x and y as fractions of the image's width and height. */
function positionOf(roll, seconds) {
  const line = clamp(Math.floor(seconds / roll.line_seconds), 0, roll.lines - 1);
  const fraction = clamp(seconds / roll.line_seconds - line, 0, 1);
  return { line, x: roll.left + fraction * roll.width, y: roll.top + line * roll.step };
}

/** The time at a point of a piano roll, given as fractions of its width and height. */
function secondsAt(roll, x, y) {
  const line = clamp(Math.floor((y - roll.top) / roll.step), 0, roll.lines - 1);
  return (line + clamp((x - roll.left) / roll.width, 0, 1)) * roll.line_seconds;
}

/** The time that a key seeks to, or null if the key does not seek. */
function seekByKey(key, seconds, total) {
  if (key === "Home") return 0;
  if (key === "End") return total;
  return Object.hasOwn(STEPS, key) ? clamp(seconds + STEPS[key], 0, total) : null;
}

/** Converts a data URI of a sound to a blob URL, since browsers limit the length of data URIs to download. */
function toDownloadUrl(uri) {
  if (!uri.startsWith("data:")) return uri;
  const bytes = Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "audio/flac" }));
}

/** Replaces the browser's audio controls with the page's own player. */
function startPlayer(card) {
  const part = (name) => card.querySelector(name);
  const [audio, button, time, picture, playhead] =
    ["audio", ".toggle", ".clock", ".roll", ".playhead"].map(part);
  const frame = picture.parentElement;
  const roll = () => JSON.parse(picture.dataset.roll); // read each time: the roll may be redrawn at another size
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  let frameRequest = 0;
  let shownTime = "";

  const total = () => (Number.isFinite(audio.duration) ? audio.duration : roll().seconds);

  function show() {
    const position = positionOf(roll(), audio.currentTime);
    playhead.style.left = `${100 * position.x}%`;
    playhead.style.top = `${100 * position.y}%`;
    const now = `${clock(audio.currentTime)} / ${clock(total())}`;
    if (shownTime === now) return;
    time.textContent = shownTime = now;
    picture.setAttribute("aria-valuenow", Math.floor(audio.currentTime));
    picture.setAttribute("aria-valuemax", Math.floor(total()));
    picture.setAttribute("aria-valuetext", now.replace("/", "of"));
  }

  function scrollToPlayhead() {
    const x = positionOf(roll(), audio.currentTime).x * picture.offsetWidth - frame.scrollLeft;
    if (x < 0 || x > frame.clientWidth - 24) frame.scrollLeft += x - frame.clientWidth / 6;
  }

  function draw() {
    show();
    scrollToPlayhead();
    cancelAnimationFrame(frameRequest);
    if (!audio.paused && !reducedMotion.matches) frameRequest = requestAnimationFrame(draw);
  }

  function toggle() {
    if (audio.paused) audio.play().catch(() => {});
    else audio.pause();
  }

  function seek(seconds) {
    audio.currentTime = clamp(seconds, 0, total());
    show();
  }

  function setPlaying(playing) {
    card.toggleAttribute("data-playing", playing);
    part(".word").textContent = playing ? "Pause" : "Play";
  }

  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    setPlaying(true);
    draw();
  });
  audio.addEventListener("pause", () => setPlaying(false));
  for (const event of ["loadedmetadata", "timeupdate", "seeked", "pause"]) audio.addEventListener(event, show);
  audio.addEventListener("timeupdate", () => audio.paused || scrollToPlayhead());
  audio.addEventListener("error", () => (audio.controls = true));
  button.addEventListener("click", toggle);
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    seek(secondsAt(roll(), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height));
  });
  picture.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const seconds = seekByKey(event.key, audio.currentTime, total());
    if (event.key === " ") toggle();
    else if (seconds === null) return;
    else seek(seconds);
    event.preventDefault();
    scrollToPlayhead();
  });

  audio.controls = false;
  for (const name of ["role", "aria-label", "tabindex"]) frame.removeAttribute(name);
  const slider = {
    role: "slider",
    tabindex: 0,
    "aria-label": picture.dataset.label,
    "aria-describedby": "how",
    "aria-valuemin": 0,
  };
  for (const [name, value] of Object.entries(slider)) picture.setAttribute(name, value);
  playhead.style.height = `${100 * roll().height}%`;
  for (const save of card.querySelectorAll(".save")) {
    save.querySelector("a").href = toDownloadUrl(audio.src);
    save.hidden = false;
  }
  for (const shown of [button, time, playhead]) shown.hidden = false;
  if (roll().start) audio.addEventListener("loadedmetadata", () => seek(roll().start), { once: true });
  show();
}

document.querySelectorAll(".card").forEach(startPlayer);
for (const hint of document.querySelectorAll("#how")) hint.hidden = false;
