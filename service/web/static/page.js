// What the page does by itself: theme, language, notices, alerts, the live connection. Everything else is htmx.
"use strict";
(() => {
  const root = document.documentElement;
  const body = document.body;
  const aYear = 60 * 60 * 24 * 365;
  const remember = (name, value) => {
    document.cookie = `${name}=${value}; path=/; max-age=${aYear}; samesite=strict${location.protocol === "https:" ? "; secure" : ""}`;
  };

  // -- theme, language, menu ---------------------------------------------------------------------------------------
  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-theme-choice], [data-language-choice], [data-dismiss], [data-print], [data-close-dialog], [data-open-dialog]");
    if (!target) return;
    if (target.dataset.themeChoice) {
      root.dataset.theme = target.dataset.themeChoice;
      remember("burnish_theme", target.dataset.themeChoice);
      for (const one of document.querySelectorAll("[data-theme-choice]")) {
        one.setAttribute("aria-pressed", String(one === target));
      }
    } else if (target.dataset.languageChoice) {
      remember("burnish_language", target.dataset.languageChoice);
      location.reload();
    } else if ("dismiss" in target.dataset) {
      target.closest(".notice").remove();
    } else if (target.dataset.openDialog) {
      document.getElementById(target.dataset.openDialog).showModal();
    } else if ("closeDialog" in target.dataset) {
      target.closest("dialog").close();
    }
  });
  // -- forms: what went wrong stands beside the form; one that was taken is empty again ------------------------------
  const errorsOf = (form) => {
    let found = form.querySelector(":scope > .form-errors");
    if (!found) {
      found = document.createElement("div");
      found.className = "form-errors";
      found.dataset.own = "";
      found.setAttribute("role", "alert");
      form.append(found);
    }
    return found;
  };
  const formOf = (event) => {
    const asked = event.detail.requestConfig && event.detail.requestConfig.elt;
    return asked && asked.matches("form[hx-target='#notices'], form[data-errors]") ? asked : null;
  };
  body.addEventListener("htmx:beforeSwap", (event) => {
    const form = formOf(event);
    if (form && event.detail.xhr.status >= 400) event.detail.target = errorsOf(form);
  });
  body.addEventListener("htmx:afterRequest", (event) => {
    const form = formOf(event);
    if (!form || !event.detail.successful) return;
    errorsOf(form).replaceChildren();
    form.reset();
    const dialog = form.closest("dialog");
    if (dialog) dialog.close();
  });
  body.addEventListener("htmx:beforeRequest", (event) => {
    const form = formOf(event);
    if (form) errorsOf(form).replaceChildren();
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  // What the page asks by itself, after an event or by a timer, is not an act of the person.
  body.addEventListener("htmx:configRequest", (event) => {
    const cause = event.detail.triggeringEvent;
    if (!cause || !cause.isTrusted) event.detail.headers["Burnish-Background"] = "1";
  });
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.target.id === "notices") {
      for (const one of [...event.target.querySelectorAll(".notice")].slice(3)) one.remove(); // the newest stand first
      for (const one of event.target.querySelectorAll(".notice.good")) setTimeout(() => one.remove(), 6000);
    }
  });

  for (const tab of document.querySelectorAll(".subtabs [aria-current]")) {
    tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.offsetLeft - 24;
  }

  // A picture that cannot be made (the answer has none) gives way to the dark ground behind it.
  document.addEventListener("error", (event) => {
    if (event.target.tagName === "IMG") event.target.hidden = true;
  }, true);

  // -- live connection ---------------------------------------------------------------------------------------------
  const connection = document.getElementById("connection");
  let lost = false;
  let signedOut = false;
  const say = (text, link = "") => {
    const words = document.createElement(link ? "a" : "span");
    words.textContent = text;
    if (link) words.href = link;
    connection.replaceChildren(words);
    connection.hidden = false;
  };
  const ask = async () => {
    // The stream's own answer cannot be seen by scripts; that of this page can.
    try {
      const answer = await fetch("/account", { headers: { "HX-Request": "true", "Burnish-Background": "1" } });
      signedOut = answer.status === 401;
    } catch {
      signedOut = false;
    }
    if (signedOut) say(body.dataset.signedOut, `/login?next=${encodeURIComponent(location.pathname)}`);
    else if (lost) say(body.dataset.lost);
  };
  body.addEventListener("htmx:sseError", (event) => {
    const refused = event.detail.source.readyState === EventSource.CLOSED;
    if (lost || refused) ask();
    else setTimeout(() => lost && ask(), 2000);
    lost = true;
  });
  body.addEventListener("htmx:sseOpen", () => {
    if (lost) htmx.trigger(body, "back");
    lost = signedOut = false;
    connection.hidden = true;
  });
  // A page that the browser had put aside shows how things stood then.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) htmx.trigger(body, "back");
  });

  // -- alerts: only where the person asked for them -------------------------------------------------------------------
  const button = document.getElementById("alerts");
  const wanted = () => localStorage.getItem("burnish_alerts") === "on";
  const show = () => {
    if (!button) return;
    button.setAttribute("aria-pressed", String(wanted()));
    button.title = wanted() ? body.dataset.notifyOn : body.dataset.notifyOff;
  };
  let sound = null;
  const beep = () => {
    sound = sound || new AudioContext();
    const start = sound.currentTime;
    for (const [at, pitch] of [[0, 660], [0.18, 880]]) {
      const tone = sound.createOscillator();
      const volume = sound.createGain();
      tone.frequency.value = pitch;
      volume.gain.setValueAtTime(0.0001, start + at);
      volume.gain.exponentialRampToValueAtTime(0.2, start + at + 0.02);
      volume.gain.exponentialRampToValueAtTime(0.0001, start + at + 0.16);
      tone.connect(volume).connect(sound.destination);
      tone.start(start + at);
      tone.stop(start + at + 0.17);
    }
  };
  if (button) {
    show();
    button.addEventListener("click", async () => {
      if (wanted()) {
        localStorage.setItem("burnish_alerts", "off");
      } else {
        localStorage.setItem("burnish_alerts", "on");
        beep();
        if ("Notification" in window && Notification.permission === "default") await Notification.requestPermission();
      }
      show();
    });
  }
  body.addEventListener("htmx:sseMessage", (event) => {
    if (event.detail.type !== "attention") return;
    const told = JSON.parse(event.detail.data);
    body.dataset.lastAttention = told.text;
    if (!wanted()) return;
    beep();
    if ("Notification" in window && Notification.permission === "granted") {
      const note = new Notification(body.dataset.notifyTitle, { body: told.text, tag: told.tag, icon: "/static/favicon.svg" });
      note.addEventListener("click", () => {
        window.focus();
        location.href = told.link;
      });
    }
  });
})();
