// The players of the gallery, and of the page of `coma-gen play`. Without this script each sample keeps the
// browser's own controls.
"use strict";

/** Seconds that a key moves by. */
const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };

const kept = (value, low, high) => Math.max(low, Math.min(high, value));

/** Seconds as people write them: 1:07. */
function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** Where a moment is in a picture: its line, and the share of the picture's width and height. */
function placeOf(roll, seconds) {
  const line = kept(Math.floor(seconds / roll.line_seconds), 0, roll.lines - 1);
  const share = kept(seconds / roll.line_seconds - line, 0, 1);
  return { line, x: roll.left + share * roll.width, y: roll.top + line * roll.step };
}

/** The moment at a point of a picture, given as shares of its width and height. */
function secondsAt(roll, x, y) {
  const line = kept(Math.floor((y - roll.top) / roll.step), 0, roll.lines - 1);
  return (line + kept((x - roll.left) / roll.width, 0, 1)) * roll.line_seconds;
}

/** Where a key leads to from a moment, or null for a key that leads nowhere. */
function movedBy(key, seconds, total) {
  if (key === "Home") return 0;
  if (key === "End") return total;
  return Object.hasOwn(STEPS, key) ? kept(seconds + STEPS[key], 0, total) : null;
}

/** The sound of a data URI as an address that can be saved, however long it is; other addresses can be. */
function savable(uri) {
  if (!uri.startsWith("data:")) return uri;
  const bytes = Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "audio/flac" }));
}

/** Puts the page's own player in place of the browser's. */
function startPlayer(card) {
  const part = (name) => card.querySelector(name);
  const [audio, button, time, picture, playhead] =
    ["audio", ".toggle", ".clock", ".roll", ".playhead"].map(part);
  const frame = picture.parentElement;
  const roll = () => JSON.parse(picture.dataset.roll); // a picture may be drawn anew at another size
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let drawn = 0;
  let told = "";

  const total = () => (Number.isFinite(audio.duration) ? audio.duration : roll().seconds);

  function show() {
    const place = placeOf(roll(), audio.currentTime);
    playhead.style.left = `${100 * place.x}%`;
    playhead.style.top = `${100 * place.y}%`;
    const now = `${clock(audio.currentTime)} / ${clock(total())}`;
    if (told === now) return;
    time.textContent = told = now;
    picture.setAttribute("aria-valuenow", Math.floor(audio.currentTime));
    picture.setAttribute("aria-valuemax", Math.floor(total()));
    picture.setAttribute("aria-valuetext", told.replace("/", "of"));
  }

  function keepInSight() {
    const x = placeOf(roll(), audio.currentTime).x * picture.offsetWidth - frame.scrollLeft;
    if (x < 0 || x > frame.clientWidth - 24) frame.scrollLeft += x - frame.clientWidth / 6;
  }

  function draw() {
    show();
    keepInSight();
    cancelAnimationFrame(drawn);
    if (!audio.paused && !still.matches) drawn = requestAnimationFrame(draw);
  }

  function toggle() {
    if (audio.paused) audio.play().catch(() => {});
    else audio.pause();
  }

  function moveTo(seconds) {
    audio.currentTime = kept(seconds, 0, total());
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
  audio.addEventListener("timeupdate", () => audio.paused || keepInSight());
  audio.addEventListener("error", () => (audio.controls = true));
  button.addEventListener("click", toggle);
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    moveTo(secondsAt(roll(), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height));
  });
  picture.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const seconds = movedBy(event.key, audio.currentTime, total());
    if (event.key === " ") toggle();
    else if (seconds === null) return;
    else moveTo(seconds);
    event.preventDefault();
    keepInSight();
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
    save.querySelector("a").href = savable(audio.src);
    save.hidden = false;
  }
  for (const shown of [button, time, playhead]) shown.hidden = false;
  if (roll().start) audio.addEventListener("loadedmetadata", () => moveTo(roll().start), { once: true });
  show();
}

document.querySelectorAll(".card").forEach(startPlayer);
for (const hint of document.querySelectorAll("#how")) hint.hidden = false;
