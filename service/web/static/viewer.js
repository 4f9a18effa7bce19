// Looking at a series: frames come as pictures from the server, drawn on a canvas; window, slices, frames, play.
"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  if (!viewer) return;
  const at = (id) => document.getElementById(id);
  const [stage, canvas, message] = [at("stage"), at("canvas"), at("viewer-message")];
  const [slice, frame, frameTools, play, preset, reset] = [at("slice"), at("frame"), at("frame-tools"), at("play"), at("preset"), at("reset")];
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const pen = canvas.getContext("2d");
  let images = [];
  let window_ = null;
  let known = { window: null, spread: null };
  let running = null;
  const kept = new Map();
  const KEPT = 120;

  // -- fetching: one request at a time for what is to be seen now; neighbours when there is nothing to do -------------
  const address = (image, number, size) => {
    const query = new URLSearchParams({ frame: number, size });
    if (window_) {
      query.set("center", window_[0]);
      query.set("width", window_[1]);
    }
    return `/images/${image.id}.png?${query}`;
  };
  const pair = (text) => (text ? text.split(" ").map(Number) : null);
  const load = async (url) => {
    if (kept.has(url)) return kept.get(url);
    const answer = await fetch(url);
    const found = answer.ok
      ? { bitmap: await createImageBitmap(await answer.blob()), window: pair(answer.headers.get("X-Window")), spread: pair(answer.headers.get("X-Spread")) }
      : { error: await answer.text() };
    kept.set(url, found);
    while (kept.size > KEPT) kept.delete(kept.keys().next().value);
    return found;
  };
  let wanted = null;
  let busy = false;
  const want = (size = 1024) => {
    wanted = { size };
    if (!busy) work();
  };
  const work = async () => {
    busy = true;
    try {
      while (wanted) {
        const { size } = wanted;
        wanted = null;
        const image = images[slice.value - 1];
        if (!image) break;
        const [number, position] = [Number(frame.value), Number(slice.value)];
        if (!image.here) {
          tell(viewer.dataset.notHere);
          note(image, position, number);
          continue;
        }
        const found = await load(address(image, number, size));
        if (found.error) {
          tell(found.error);
        } else {
          tell("");
          if (canvas.width !== found.bitmap.width) canvas.width = found.bitmap.width;
          if (canvas.height !== found.bitmap.height) canvas.height = found.bitmap.height;
          pen.drawImage(found.bitmap, 0, 0);
          known = found;
        }
        note(image, position, number);
        viewer.dataset.shown = `${image.id}/${number}`;
        if (!wanted && !running) {
          for (const step of [1, -1, 2]) {
            const next = image.frames > 1 ? [image, number + step] : [images[position - 1 + step], 1];
            if (wanted || !next[0] || !next[0].here || next[1] < 1 || next[1] > next[0].frames) continue;
            await load(address(next[0], next[1], size));
          }
        }
      }
    } finally {
      busy = false;
    }
  };
  const tell = (text) => {
    message.textContent = text;
    message.hidden = !text;
    canvas.hidden = Boolean(text);
  };
  const note = (image, position, number) => {
    at("over-image").textContent = fill(viewer.dataset.imageOf, { n: position, of: images.length });
    at("over-frame").textContent = image.frames > 1 ? fill(viewer.dataset.frameOf, { n: number, of: image.frames }) : "";
    const shown = window_ || known.window;
    at("over-window").textContent = shown ? fill(viewer.dataset.window, { center: Math.round(shown[0]), width: Math.round(shown[1]) }) : "";
  };

  // -- series, slices, frames ------------------------------------------------------------------------------------------
  const open = async (series) => {
    stop();
    tell(viewer.dataset.loading);
    const answer = await fetch(`/series/${series}/images`);
    images = answer.ok ? await answer.json() : [];
    slice.max = Math.max(1, images.length);
    slice.value = Math.ceil(images.length / 2) || 1;
    window_ = null;
    preset.value = "own";
    frames();
    want();
  };
  const frames = () => {
    const image = images[slice.value - 1];
    const count = image ? image.frames : 1;
    frame.max = count;
    if (Number(frame.value) > count) frame.value = 1;
    frameTools.hidden = count < 2;
    play.hidden = count < 2 && images.length < 2;
  };
  const moveSlice = (step) => {
    slice.value = Math.min(Number(slice.max), Math.max(1, Number(slice.value) + step));
    frames();
    want();
  };
  const moveFrame = (step, around = false) => {
    const count = Number(frame.max);
    const next = Number(frame.value) + step;
    frame.value = around ? ((next - 1 + count) % count) + 1 : Math.min(count, Math.max(1, next));
    want();
  };
  slice.addEventListener("input", () => moveSlice(0));
  frame.addEventListener("input", () => want());
  for (const button of document.querySelectorAll("button[data-series]")) {
    button.addEventListener("click", () => {
      for (const one of document.querySelectorAll("button[data-series]")) one.removeAttribute("aria-current");
      button.setAttribute("aria-current", "true");
      open(button.dataset.series);
    });
  }
  const stop = () => {
    clearInterval(running);
    running = null;
    play.setAttribute("aria-pressed", "false");
    play.querySelector("span").textContent = viewer.dataset.play;
  };
  const start = () => {
    play.setAttribute("aria-pressed", "true");
    play.querySelector("span").textContent = viewer.dataset.pause;
    running = setInterval(() => {
      if (busy) return;
      if (Number(frame.max) > 1) moveFrame(1, true);
      else {
        slice.value = (Number(slice.value) % images.length) + 1;
        moveSlice(0);
      }
    }, 80);
  };
  play.addEventListener("click", () => (running ? stop() : start()));

  // -- window ----------------------------------------------------------------------------------------------------------
  preset.addEventListener("change", () => {
    if (preset.value === "own") window_ = null;
    else if (preset.value === "spread") window_ = known.spread;
    else window_ = preset.value.split(",").map(Number);
    want();
  });
  const back = () => {
    window_ = null;
    preset.value = "own";
    want();
  };
  reset.addEventListener("click", back);
  const widen = (level, width) => {
    const from = window_ || known.window;
    if (!from) return;
    const unit = Math.max(1, (known.spread ? known.spread[1] : from[1]) / 300);
    window_ = [Math.round(from[0] + level * unit), Math.max(1, Math.round(from[1] + width * unit))];
    want(512);
  };
  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    drag = [event.clientX, event.clientY];
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    widen(event.clientY - drag[1], event.clientX - drag[0]);
    drag = [event.clientX, event.clientY];
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, () => {
      drag = null;
      want();
    });
  }
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const step = event.deltaY > 0 ? 1 : -1;
    if (images.length > 1) moveSlice(step);
    else moveFrame(step);
  }, { passive: false });
  const keys = {
    ArrowDown: () => moveSlice(1), ArrowUp: () => moveSlice(-1), PageDown: () => moveSlice(10), PageUp: () => moveSlice(-10),
    Home: () => moveSlice(-1e9), End: () => moveSlice(1e9), ArrowRight: () => moveFrame(1), ArrowLeft: () => moveFrame(-1),
    " ": () => (running ? stop() : start()), r: back, "+": () => widen(0, -10), "-": () => widen(0, 10), "[": () => widen(-10, 0), "]": () => widen(10, 0),
  };
  stage.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });

  if (viewer.dataset.modality !== "CT") for (const one of preset.querySelectorAll("[data-ct]")) one.remove();
  open(viewer.dataset.series);
})();
