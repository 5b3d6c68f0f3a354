"use strict";
(() => {
  const source = document.getElementById("album");
  if (!source) return;
  const album = JSON.parse(source.textContent);
  const at = (id) => document.getElementById(id);
  const [run, look, right, selected, search] = ["run", "look", "right", "selected", "search"].map(at);

  // Text only ever becomes a text node or an attribute's value: nothing in a question or a response is markup.
  const make = (name, attributes, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : String(value));
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  };

  const fill = (select, entries, wanted) => {
    select.replaceChildren(...entries.map(([value, text]) => make("option", { value }, text)));
    if (entries.some(([value]) => value === wanted)) select.value = wanted;
  };

  const looks = () => album.looks.filter((item) => item.run === run.value);

  const step = (text, score) => {
    if (score === undefined) return make("li", { class: "plain" }, text);
    const share = Math.max(0, Math.min(1, score)) * 100;
    const shown = score.toFixed(2).replace("-", "\u2212");
    const number = make("span", { class: "score", title: "PRM score " + shown }, shown);
    const item = make("li", { class: "scored" }, make("span", {}, text), number);
    item.style.setProperty("--p", share.toFixed(0) + "%");
    return item;
  };

  const reply = (item) => {
    const marks = [make("span", { class: "mark" }, item.correct ? "\u2713 right" : "\u2717 wrong")];
    const badge = (text, kind) => marks.push(make("span", { class: "badge " + kind }, text));
    if (item.greedy) badge("greedy", "");
    if (item.count) badge("\u00d7" + item.count, "");
    if (item.selected) badge((item.count ? item.selected + " " : "") + "selected for training", "chosen");
    if (item.cut) badge("cut at the token limit", "");
    if (item.answer === null) badge("no answer found", "");
    const scores = item.scores || [];
    if (scores.length) badge("reward " + Math.min(...scores).toFixed(2).replace("-", "\u2212"), "");
    const matched = scores.length === item.steps.length;
    const steps = item.steps.map((text, index) => step(text, matched ? scores[index] : undefined));
    if (scores.length && !matched) steps.push(step("scores of its steps: " + scores.join(", ")));
    if (!item.steps.length) steps.push(make("li", { class: "plain none-left" }, "(an empty response)"));
    const kind = "reply " + (item.correct ? "right" : "wrong") + (item.selected ? " kept" : "");
    return make("li", { class: kind }, make("p", { class: "verdict" }, ...marks), make("ol", { class: "steps" }, ...steps));
  };

  const card = (query, replies) => {
    const picture = make("img", {
      src: query.image, alt: "The image of question " + query.id, width: query.width, height: query.height, loading: "lazy",
    });
    const letter = (index) => String.fromCharCode(65 + index);
    const same = (text, index) => text === query.answer || (query.answer === letter(index) && !query.options.includes(query.answer));
    const options = query.options.map((text, index) => make("li", { class: same(text, index) ? "true" : null }, text));
    const truth = make("p", { class: "note" }, "True answer: ", make("strong", {}, query.answer), "  \u00b7  " + query.id);
    return make("article", { class: "card" },
      make("div", {}, picture),
      make("div", {},
        make("h3", {}, query.question),
        options.length ? make("ul", { class: "options", "aria-label": "Options" }, ...options) : null,
        truth,
        make("ul", { class: "replies" }, ...replies.map(reply))));
  };

  const wanted = (item) =>
    (right.value === "" || Boolean(item.correct) === (right.value === "1")) &&
    (selected.value === "" || Boolean(item.selected) === (selected.value === "1"));

  const show = () => {
    const chosen = looks()[Number(look.value)];
    if (!chosen) return;
    const text = search.value.trim().toLowerCase();
    const cards = [];
    let total = 0;
    for (const group of chosen.groups) {
      const query = album.queries[group.id];
      const about = [query.id, query.question, query.answer, ...query.options].join("\n").toLowerCase();
      const replies = group.responses.filter((item) => wanted(item) &&
        (!text || about.includes(text) || item.steps.join("\n").toLowerCase().includes(text)));
      if (!replies.length) continue;
      total += replies.reduce((sum, item) => sum + (item.count || 1), 0);
      cards.push(card(query, replies));
    }
    at("cards").replaceChildren(...(cards.length ? cards : [make("p", { class: "none-left" }, "Nothing matches these filters.")]));
    at("count").textContent = chosen.said + " Shown: " + total + (total === 1 ? " response" : " responses") +
      " to " + cards.length + (cards.length === 1 ? " question." : " questions.");
  };

  const chooseRun = () => {
    const name = look.selectedOptions.length ? look.selectedOptions[0].text : "";
    const entries = looks().map((item, index) => [String(index), item.name]);
    const last = entries.filter(([, text]) => text.endsWith("training")).pop() || entries[entries.length - 1];
    const same = entries.find(([, text]) => text === name);
    fill(look, entries, (same || last || [""])[0]);
    show();
  };

  const scored = album.looks.find((item) => item.groups.some((group) => group.responses.some((one) => one.scores)));
  fill(run, [...new Set(album.looks.map((item) => item.run))].map((name) => [name, name]), scored ? scored.run : "");
  run.addEventListener("change", chooseRun);
  for (const control of [look, right, selected]) control.addEventListener("change", show);
  search.addEventListener("input", show);
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  chooseRun();
})();
