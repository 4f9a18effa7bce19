// hx-swap="morph": what came anew is put in place piece by piece, so that whoever types, points at something, has
// marked text or opened something is not disturbed by a live update. Elements with an id are known by it.
"use strict";
(() => {
  const field = (one) => one.matches("input, select, textarea");
  const touched = (one) =>
    one === document.activeElement ||
    (one.matches("[type=checkbox], [type=radio]") ? one.checked !== one.defaultChecked : one.value !== one.defaultValue);

  const attributes = (old, fresh) => {
    const busy = old.classList.contains("htmx-request") || old.hasAttribute("data-disabled-by-htmx");
    const theirs = (name) =>
      // What is open is the person's, what is busy is htmx's, and a picture that cannot be shown stays hidden.
      (name === "open" && old.matches("details, dialog")) || (busy && ["class", "disabled", "data-disabled-by-htmx"].includes(name)) ||
      (name === "hidden" && old.tagName === "IMG");
    for (const { name, value } of [...fresh.attributes]) {
      if (!theirs(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (!theirs(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
  };
  const fields = (old, fresh) => {
    const kept = { value: old.value, checked: old.checked };
    const keep = old.tagName === "SELECT" || touched(old);
    attributes(old, fresh);
    if (old.tagName !== "INPUT") children(old, fresh);
    if (old.tagName === "SELECT") {
      if ([...old.options].some((one) => one.value === kept.value)) old.value = kept.value;
    } else if (keep) {
      if (old.value !== kept.value) old.value = kept.value;
      old.checked = kept.checked;
    } else {
      if (old.value !== old.defaultValue) old.value = old.defaultValue;
      old.checked = old.defaultChecked;
    }
  };
  const one = (old, fresh) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
    } else if (field(old)) {
      fields(old, fresh);
    } else {
      attributes(old, fresh);
      if (!old.hasAttribute("data-keep") || fresh.firstElementChild) children(old, fresh);
    }
  };
  const alike = (old, fresh) => old.nodeName === fresh.nodeName && (old.id || "") === (fresh.id || "") && !own(old);
  const own = (old) => old.dataset && "own" in old.dataset; // put there by the page itself
  const move = Element.prototype.moveBefore || Element.prototype.insertBefore; // the former keeps what has the keyboard
  const blank = (node) => node.nodeType === Node.TEXT_NODE && !node.data.trim();
  const children = (old, fresh) => {
    const coming = new Set([...fresh.children].map((each) => each.id).filter(Boolean));
    for (const each of [...old.children]) if (each.id && !coming.has(each.id)) each.remove();
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      while (at && next.nodeType === Node.ELEMENT_NODE && blank(at)) {
        const gap = at; // better another gap than an element that is moved
        at = at.nextSibling;
        gap.remove();
      }
      let known = next.id ? [...old.children].find((each) => alike(each, next)) : at;
      if (!next.id) while (known && !alike(known, next)) known = next.nodeType === Node.ELEMENT_NODE ? known.nextSibling : null;
      if (!known) {
        old.insertBefore(next, at);
        continue;
      }
      if (known === at) at = at.nextSibling;
      else move.call(old, known, at);
      one(known, next);
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      if (!own(gone)) gone.remove();
    }
  };

  htmx.defineExtension("morph", {
    isInlineSwap: (style) => style === "morph",
    handleSwap: (style, target, fragment) => {
      if (style !== "morph") return false;
      const whole = fragment.children.length === 1 ? fragment.firstElementChild : null;
      if (whole && whole.id === target.id) one(target, whole);
      else children(target, fragment);
      return [target];
    },
  });
})();
