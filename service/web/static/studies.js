// Which studies are chosen, kept while one searches on; thumbnails that cannot be made give way to an icon.
"use strict";
(() => {
  const bar = document.getElementById("selection");
  const key = "burnish_chosen";
  const chosen = new Set(JSON.parse(sessionStorage.getItem(key) || "[]"));

  const show = () => {
    for (const box of document.querySelectorAll("[data-study]")) {
      box.checked = chosen.has(box.dataset.study);
      box.closest(".study").classList.toggle("chosen", box.checked);
    }
    if (!bar) return;
    sessionStorage.setItem(key, JSON.stringify([...chosen]));
    bar.hidden = chosen.size === 0;
    const text = chosen.size === 1 ? bar.dataset.one : bar.dataset.other;
    document.getElementById("chosen-count").textContent = text.replace("{n}", String(chosen.size));
    for (const old of bar.querySelectorAll("input")) old.remove();
    for (const one of chosen) {
      const field = document.createElement("input");
      field.type = "hidden";
      field.name = "study";
      field.value = one;
      bar.append(field);
    }
  };
  document.addEventListener("change", (event) => {
    const study = event.target.dataset && event.target.dataset.study;
    if (!study) return;
    if (event.target.checked) chosen.add(study);
    else chosen.delete(study);
    show();
  });
  if (bar) {
    document.getElementById("choose-none").addEventListener("click", () => {
      chosen.clear();
      show();
    });
    bar.addEventListener("submit", () => sessionStorage.removeItem(key));
  }
  // What comes by itself leaves as many studies as were asked for before.
  document.body.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.elt.id === "received") event.detail.parameters.shown = String(document.querySelectorAll("#found .study").length);
  });
  document.body.addEventListener("htmx:afterSettle", show);
  window.addEventListener("pageshow", show);
  show();
})();
