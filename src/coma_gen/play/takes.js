// A take: what one press of "Continue" makes, its variants side by side. Sounds come from the server, one by one.
"use strict";

/** Seconds before the new music at which a player starts. */
const LEAD = 5;

/** Asks the server; the refusal of what it does not do becomes an error with its reasons. */
async function ask(path, body, signal) {
  let answer;
  try {
    const init = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal };
    answer = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Does `coma-gen play` still run?");
  }
  if (answer.ok) return answer;
  const reason = await answer.json().catch(() => ({}));
  throw new Error(reason.error ?? `the server answered ${answer.status}`);
}

/** The events of a stream of lines of JSON. */
async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** The name of a variant's files, without ending: song-continued-02, and of what goes on from it song-continued-02-01. */
function stemOf(prompt, number, kind) {
  const stem = prompt.replace(/\.midi?$/i, "");
  const count = String(number).padStart(2, "0");
  if (kind === "express") return `${stem}-expressed-${count}`;
  if (!stem) return `from-nothing-${count}`;
  return /-(continued|nothing)(-\d\d)+$/.test(stem) ? `${stem}-${count}` : `${stem}-continued-${count}`;
}

function copyOf(template) {
  return document.getElementById(template).content.firstElementChild.cloneNode(true);
}

/** One variant. */
class Variant {
  constructor(take, number) {
    this.take = take;
    this.number = number;
    this.stem = stemOf(take.prompt, number, take.kind);
    this.element = copyOf("variant");
    this.frame = this.element.querySelector(".roll");
    this.notes = [];
    this.part("h4").textContent = `Variant ${number}`;
    for (const unseen of this.element.querySelectorAll(".name")) unseen.textContent = ` of variant ${number}`;
    this.frame.dataset.label = `Place in variant ${number}`;
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  get music() {
    const { notes, splice, start, seconds: made } = this.take.begun;
    const total = (splice ?? start) - start + made;
    const ends = this.midi ? this.notes.map((note) => note[0] + note[1]) : [total];
    const shown = splice === null ? null : splice - start;
    const seconds = Math.max(shown ?? 0, ...chunked(ends, Math.max));
    return { notes: [...notes, ...this.notes], seconds, range: this.take.range, splice: shown };
  }

  draw() {
    keepDrawn(this.frame, () => this.music);
  }

  /** Takes what is new since the last time: what begins at `from` or later is replaced. */
  grow({ from, notes }) {
    if (from === null) return;
    this.notes = [...this.notes.filter((note) => note[0] < from - 0.001), ...notes];
  }

  finish(piece) {
    Object.assign(this, { notes: piece.notes, midi: piece.midi });
    const short = piece.reached ? "" : " · ended at the limit on tokens";
    this.part(".about").textContent = `${piece.notes.length}${this.take.kind === "express" ? "" : " new"} notes${short}`;
    const link = this.part(".midi");
    link.href = URL.createObjectURL(new Blob([bytesOf(piece.midi)], { type: "audio/midi" }));
    link.download = `${this.stem}.mid`;
    this.part(".clock").textContent = "Making the sound ...";
    this.part(".files").classList.add("ready");
    this.part(".keep").disabled = false;
    this.part(".keep").addEventListener("click", () => this.take.keep(this));
    for (const kind of ["flac", "wav"]) {
      this.part(`.${kind}`).addEventListener("click", (event) => {
        if (kind === "flac" && this.take.begun.start === 0 && this.sounds) return;
        event.preventDefault();
        this.saveSound(kind);
      });
    }
    this.part(".flac").href = "#";
    this.part(".flac").download = `${this.stem}.flac`;
  }

  get file() {
    return { midi: this.midi, name: `${this.stem}.mid` };
  }

  /** Fetches the sound, from the second that is shown first, and starts the player. */
  async load() {
    const { start, splice } = this.take.begun;
    const answer = await ask("/sound", { ...this.file, from: start });
    const audio = this.part("audio");
    const lead = () => (audio.currentTime = Math.max(0, (splice ?? start) - start - LEAD));
    audio.addEventListener("loadedmetadata", lead, { once: true });
    audio.src = URL.createObjectURL(await answer.blob());
    startPlayer(this.element);
    this.sounds = true;
    this.part(".toggle").disabled = false;
  }

  async saveSound(kind) {
    const link = this.part(`.${kind}`);
    if (link.ariaBusy) return;
    link.ariaBusy = "true";
    try {
      const answer = await ask("/sound", { ...this.file, kind });
      save(await answer.blob(), `${this.stem}.${kind}`);
    } catch (error) {
      say(error.message);
    }
    link.ariaBusy = null;
  }
}

/** What one press makes. */
class Take {
  constructor(kind, prompt, request, keep) {
    Object.assign(this, { kind, prompt, request, keep, variants: [], begun: null });
    this.element = copyOf("take");
    this.stopper = new AbortController();
    const { num, seed } = request;
    this.part("h3").textContent = num > 1 ? `${num} variants` : "One variant";
    this.part(".about").textContent = [...wishesOf(kind, request), `seed ${seed}`].join(" · ");
    this.part(".stop").addEventListener("click", () => this.stopper.abort());
    this.part(".zip").addEventListener("click", () => this.saveAll());
    this.part(".copy").addEventListener("click", () => this.copy());
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  /** Asks for the music and shows it while it comes. */
  async run() {
    this.tell("Reading ...");
    const answer = await ask(`/${this.kind}`, { ...this.request, name: this.prompt || undefined }, this.stopper.signal);
    for await (const event of eventsOf(answer)) {
      if (event.error) throw new Error(event.error);
      if (event.waiting) this.tell(event.waiting === 1 ? "One is before you" : `${event.waiting} are before you`);
      if (event.begun) this.begin(event.begun);
      if (event.progress) this.grow(event.progress);
      if (event.pieces) return this.finish(event);
    }
    throw new Error("The server ended the answer. Does `coma-gen play` still run?");
  }

  tell(text) {
    this.part(".reached").textContent = text;
  }

  begin(begun) {
    this.begun = begun;
    this.tell(`0 of ${Math.ceil(begun.seconds)} s`);
    for (let number = 1; number <= this.request.num; number++) {
      const variant = new Variant(this, number);
      this.variants.push(variant);
      this.part(".variants").append(variant.element);
    }
    this.draw();
    this.element.scrollIntoView({ block: "start", behavior: still.matches ? "auto" : "smooth" });
  }

  /** Draws all variants, over the same pitches. */
  draw() {
    this.range = rangeOf([this.begun, ...this.variants].flatMap((each) => each.notes));
    for (const variant of this.variants) variant.draw();
  }

  grow(progress) {
    progress.forEach((part, index) => this.variants[index].grow(part));
    this.draw();
    const mean = progress.reduce((sum, part) => sum + Math.min(part.seconds, this.begun.seconds), 0) / progress.length;
    this.part("progress").value = mean / this.begun.seconds;
    this.tell(`${Math.floor(mean)} of ${Math.ceil(this.begun.seconds)} s`);
  }

  finish({ pieces, command }) {
    pieces.forEach((piece, index) => this.variants[index].finish(piece));
    this.draw();
    this.part(".progress").hidden = true;
    this.part(".whole").hidden = false;
    this.part(".command").hidden = false;
    this.part("code").textContent = this.commandLine = command;
    if (this.prompt) this.part(".command p").textContent = `The same on the command line, beside ${this.prompt}:`;
  }

  async loadSounds() {
    for (const variant of this.variants) await variant.load();
  }

  async saveAll() {
    const button = this.part(".zip");
    button.disabled = true;
    button.textContent = "Packing ...";
    try {
      const { splice } = this.begun;
      const pieces = this.variants.map((variant) => ({ ...variant.file, splice }));
      const answer = await ask("/archive", { pieces, command: this.commandLine });
      save(await answer.blob(), `${stemOf(this.prompt, 1, this.kind).replace(/-\d\d$/, "")}.zip`);
    } catch (error) {
      say(error.message);
    }
    button.textContent = "Download all (ZIP)";
    button.disabled = false;
  }

  async copy() {
    const button = this.part(".copy");
    try {
      await navigator.clipboard.writeText(this.commandLine);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(this.part("code"));
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }
}
