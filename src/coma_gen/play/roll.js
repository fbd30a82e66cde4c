// Draws piano rolls on canvases while notes arrive; report.js maps positions in them to times and plays them.
"use strict";

const SIDE = { left: 30, right: 10, top: 16, ticks: 20 };
const BLACK_KEYS = new Set([1, 3, 6, 8, 10]);
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const MAX_LINES = 12;
/** Velocities of the palest and the deepest color, as in report/piano_roll.py. */
const [SOFTEST, LOUDEST] = [24, 108];

/**
 * The layout of music in a roll of a given width: what the players of report.js need (lines, line_seconds; left,
 * width, top, step and height as fractions), and the same in pixels.
 */
function layoutOf(music, width) {
  const [lowest, highest] = music.range ?? rangeOf(music.notes);
  let [low, high] = [Math.floor(lowest / 12) * 12, Math.floor(highest / 12) * 12 + 12];
  while (high - low < 36) [low, high] = [Math.max(0, low - 12), Math.min(132, high + 12)];
  const seconds = Math.max(1, music.seconds);
  const across = Math.max(100, width - SIDE.left - SIDE.right);
  const lines = clamp(Math.ceil(seconds / Math.max(24, across / 11)), 1, MAX_LINES);
  const lineSeconds = lines > 1 ? Math.ceil(seconds / lines) : seconds;
  const row = lines === 1 ? 4 : lines <= 4 ? 3 : 2;
  const keys = (high - low + 1) * row;
  const step = keys + SIDE.ticks + (lines > 1 ? 8 : 0);
  const total = SIDE.top + lines * step;
  return {
    ...{ seconds, lines, line_seconds: lineSeconds, left: SIDE.left / width, width: across / width },
    ...{ top: SIDE.top / total, step: step / total, height: keys / total },
    pixels: { width, across, total, step, keys, row, low, high },
  };
}

/** The lowest and the highest pitch of notes; includes at least the octave of middle C. */
function rangeOf(notes) {
  const pitches = notes.map((note) => note[2]);
  return [Math.min(60, ...chunked(pitches, Math.min)), Math.max(71, ...chunked(pitches, Math.max))];
}

/** The extreme of every 10,000 values, since the number of arguments of a call is limited. */
function chunked(values, extreme) {
  const found = [];
  for (let at = 0; at < values.length; at += 10000) found.push(extreme(...values.slice(at, at + 10000)));
  return found;
}

function colorsOf() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

/** Eight colors from soft to loud. */
function rampOf(soft, loud) {
  const parts = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const [from, to] = [parts(soft), parts(loud)];
  const blend = (share) => `rgb(${from.map((value, index) => Math.round(value + (to[index] - value) * share))})`;
  return Array.from({ length: 8 }, (_, index) => blend(index / 7));
}

/**
 * Draws music into the canvas of a `.roll` at its width, and stores the layout in its data-roll.
 *
 * music: {notes: [[onset, duration, pitch, velocity]], seconds, splice, used: [from, to], range}. Notes after
 * `splice` (all notes if it is null) are generated; notes outside `used` are gray; `range` is the pitch range.
 */
function drawRoll(frame, music) {
  frame.drawnWidth = frame.clientWidth;
  const layout = layoutOf(music, Math.max(200, frame.clientWidth));
  const { pixels, ...shares } = layout;
  frame.dataset.roll = JSON.stringify(shares);
  const canvas = frame.querySelector("canvas");
  const dense = window.devicePixelRatio || 1;
  canvas.width = Math.round(pixels.width * dense);
  canvas.height = Math.round(pixels.total * dense);
  canvas.style.height = `${pixels.total}px`;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  const color = colorsOf();
  for (let line = 0; line < layout.lines; line++) drawLine(pen, layout, line, color);
  drawNotes(pen, layout, music, color);
  if (music.splice !== null) drawSplice(pen, layout, music.splice, color("ink"));
}

function drawLine(pen, layout, line, color) {
  const { across, step, keys, row, low, high } = layout.pixels;
  const top = SIDE.top + line * step;
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  for (let pitch = low; pitch <= high; pitch++) {
    const y = top + (high - pitch) * row;
    pen.fillStyle = color("shade");
    if (BLACK_KEYS.has(pitch % 12)) pen.fillRect(SIDE.left, y, across, row);
    if (pitch % 12) continue;
    pen.fillStyle = color("line");
    pen.fillRect(SIDE.left, y + row - 0.5, across, 1);
    pen.fillStyle = color("muted");
    pen.textAlign = "right";
    if (row > 2 || pitch % 24 === 12) pen.fillText(`C${pitch / 12 - 1}`, SIDE.left - 5, y + row / 2);
  }
  const tick = TICKS.find((each) => (each / layout.line_seconds) * across >= 44) ?? 1200;
  const begin = line * layout.line_seconds;
  pen.textAlign = "center";
  for (let time = Math.ceil(begin / tick) * tick; time <= begin + layout.line_seconds + 0.001; time += tick) {
    const x = SIDE.left + ((time - begin) / layout.line_seconds) * across;
    pen.fillStyle = color("line");
    pen.fillRect(x - 0.5, top, 1, keys);
    pen.fillStyle = color("muted");
    pen.fillText(clock(time), Math.min(x, SIDE.left + across - 6), top + keys + 11);
  }
}

function drawNotes(pen, layout, music, color) {
  const { across, step, row, high } = layout.pixels;
  const given = rampOf(color("given-soft"), color("given"));
  const made = rampOf(color("made-soft"), color("made"));
  const [from, to] = music.used ?? [0, Infinity];
  for (const [onset, duration, pitch, velocity] of [...music.notes].sort((a, b) => a[3] - b[3])) {
    const depth = Math.round(7 * clamp((velocity - SOFTEST) / (LOUDEST - SOFTEST), 0, 1));
    const isMade = music.splice === null || onset > music.splice + 0.001;
    pen.fillStyle = music.used && (onset < from || onset >= to) ? color("plain-soft") : (isMade ? made : given)[depth];
    const last = clamp(Math.floor((onset + duration) / layout.line_seconds), 0, layout.lines - 1);
    for (let line = clamp(Math.floor(onset / layout.line_seconds), 0, layout.lines - 1); line <= last; line++) {
      const [x, end] = [onset, onset + duration].map(
        (time) => SIDE.left + clamp(time / layout.line_seconds - line, 0, 1) * across,
      );
      pen.fillRect(x, SIDE.top + line * step + (high - pitch) * row, Math.max(2, end - x - 0.5), row - 0.5);
    }
  }
}

/** The line where the new music begins. */
function drawSplice(pen, layout, seconds, ink) {
  const place = positionOf(layout, seconds);
  const { width, total, keys } = layout.pixels;
  const [x, y] = [place.x * width, place.y * total];
  pen.fillStyle = ink;
  pen.fillRect(x - 1, y - 4, 2, keys + 4);
  pen.beginPath();
  pen.moveTo(x - 7, y - 14);
  pen.lineTo(x + 7, y - 14);
  pen.lineTo(x, y - 3);
  pen.fill();
}

const drawn = new WeakMap();
const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) if (target.clientWidth !== target.drawnWidth) requestAnimationFrame(drawn.get(target));
});

/** Draws music now, and again when the size or the colors change; `music` is called each time. */
function keepDrawn(frame, music) {
  const draw = () => frame.clientWidth && drawRoll(frame, music());
  const isNew = !drawn.has(frame);
  drawn.set(frame, draw);
  if (isNew) resized.observe(frame);
  draw();
}

/** Redraws all visible rolls. */
function redraw() {
  for (const frame of document.querySelectorAll(".roll")) drawn.get(frame)?.();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
