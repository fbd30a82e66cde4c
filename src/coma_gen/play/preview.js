// Plays the selected part of the prompt before anything is generated.
"use strict";

/** The player; `key` identifies the part that is loaded. */
const preview = { audio: document.createElement("audio"), from: 0, key: "" };
document.body.append(preview.audio);

function stopPreview() {
  preview.audio.pause();
  preview.key = "";
  $("roll").querySelector(".playhead").hidden = true;
}

async function togglePreview() {
  const place = here();
  const { audio } = preview;
  if (!audio.paused) return audio.pause();
  const [start, to] = usedOf(place);
  const from = modeOf(place) === "express" ? start : Math.max(start, to - MAX_PREVIEW);
  const atEnd = to >= place.end;
  const key = `${depth} ${from} ${to}`;
  if (preview.key !== key) {
    $("hear").disabled = true;
    $("hear").querySelector(".word").textContent = "Wait ...";
    try {
      const body = { midi: place.midi, name: place.name, from, ...(atEnd ? {} : { to }) };
      audio.src = URL.createObjectURL(await (await ask("/sound", body)).blob());
      Object.assign(preview, { key, from });
    } catch (error) {
      return showMessage(error.message);
    } finally {
      $("hear").disabled = false;
      $("hear").querySelector(".word").textContent = "Play";
    }
  }
  await audio.play().catch(() => {});
}

function followPreview() {
  const head = $("roll").querySelector(".playhead");
  const roll = JSON.parse($("roll").dataset.roll);
  const place = positionOf(roll, preview.from + preview.audio.currentTime);
  Object.assign(head.style, { left: `${100 * place.x}%`, top: `${100 * place.y}%`, height: `${100 * roll.height}%` });
  head.hidden = false;
  if (!preview.audio.paused) requestAnimationFrame(followPreview);
}

preview.audio.addEventListener("play", () => {
  for (const other of document.querySelectorAll("audio")) if (other !== preview.audio) other.pause();
  $("given").setAttribute("data-playing", "");
  $("hear").querySelector(".word").textContent = "Pause";
  followPreview();
});
preview.audio.addEventListener("pause", () => {
  $("given").removeAttribute("data-playing");
  $("hear").querySelector(".word").textContent = "Play";
});
