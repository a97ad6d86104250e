"use strict";
// The page of a served run. Ids and titles are hostile text: they become text nodes, never markup.

const byId = (id) => document.getElementById(id);
const state = { domain: "", user: "", liked: null, item: "" }; // liked: items of a new user, or null for a known one
const detailsOf = new Map(); // item → what the items file says; null if nothing
let token = sessionStorage.getItem("edda-token") || "";
let turn = 0; // answers to earlier questions are dropped

class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = { headers };
  if (body) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Problem(answer.status, problem.detail || `status ${answer.status}`);
}

const json = async (path, body) => (await ask(path, body)).json();
const path = (...segments) => "/v1/" + segments.map(encodeURIComponent).join("/");

// Control and bidirectional characters as JSON writes them, as everywhere in EDDA.
const visible = (text) =>
  text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) =>
    /[\u200c\u200d]/.test(character) ? character : "\\u" + character.codePointAt(0).toString(16).padStart(4, "0"));

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const id = (text) => element("bdi", {}, visible(text));
const percent = (share) => `${Math.round(100 * share)} %`;
const titleOf = (item) => detailsOf.get(item)?.title || item;

function show(problem) {
  byId("token").hidden = problem?.status !== 401;
  byId("problem").hidden = !problem || problem.status === 401;
  byId("problem").textContent = problem ? visible(problem.message) : "";
  if (problem?.status === 401) byId("token-text").focus();
}

async function loadDetails(items) {
  const unknown = [...new Set(items)].filter((item) => !detailsOf.has(item)).slice(0, 1000);
  if (!unknown.length) return;
  const found = (await json("/v1/details", { items: unknown })).items;
  for (const item of unknown) detailsOf.set(item, found[item] || null);
}

function picture(item) {
  if (!detailsOf.get(item)?.picture) return null;
  const image = element("img", { alt: "", loading: "lazy" });
  if (!token) image.src = path("pictures", item);
  else {
    ask(path("pictures", item))
      .then((answer) => answer.blob())
      .then((blob) => { image.src = URL.createObjectURL(blob); })
      .catch(() => image.remove());
  }
  return image;
}

// A row of a list: a picture, the title, which shows what is like the item, lines below, and a button that adds it.
function card(item, { rank, score, lines = [], domain = state.domain } = {}) {
  const title = titleOf(item);
  const isLiked = state.liked?.includes(item);
  return element("li", {},
    element("span", { class: "rank" }, rank ? String(rank) : ""),
    picture(item),
    element("div", { class: "text" },
      element("button", { class: "title", type: "button", onclick: () => go({ item, domain }) }, id(title)),
      title === item ? null : element("span", { class: "id" }, " ", id(item))),
    element("div", { class: "actions" },
      score === undefined ? null : element("span", { class: "score" }, score.toFixed(3)),
      element("button", { type: "button", disabled: isLiked ? "" : undefined, "aria-label": `Add ${visible(title)} to a new user`,
        onclick: () => go({ liked: [...(state.liked || []), item] }) }, isLiked ? "added" : "+ add")),
    ...lines.map((line) => element("div", { class: "more" }, ...line)));
}

function whyLine(why) {
  if (!why) return ["here for its popularity"];
  const parts = why.because_of.flatMap((reason, number) => [
    number ? ", " : "because of ", id(titleOf(reason.item)), ` (${visible(reason.domains.join(", "))}) ${percent(reason.share)}`]);
  const meter = element("meter", { min: 0, max: 1, value: why.vectors, "aria-label": "share of the vectors in the score" });
  const shares = ` vectors ${percent(why.vectors)}, evidence from walks ${percent(why.evidence)}`;
  return [meter, shares, parts.length ? "; " : "", ...parts];
}

async function showPerson(mine) {
  let groups = [];
  if (state.liked) {
    byId("person-title").textContent = "A new user";
    byId("person-note").textContent = state.liked.length
      ? "Items that the new user likes. Click one to take it away."
      : "Nothing chosen yet: add items below or search for some. Until then the list has the most popular items.";
    await loadDetails(state.liked);
    groups = [element("div", { class: "chips" }, ...state.liked.map((item) =>
      element("button", { type: "button", "aria-label": `Take away ${visible(titleOf(item))}`,
        onclick: () => go({ liked: state.liked.filter((other) => other !== item) }) }, id(titleOf(item)), " ×")))];
  } else {
    byId("person-title").replaceChildren("User ", id(state.user));
    const history = (await json(path("history", state.user))).domains;
    await loadDetails(history.flatMap((domain) => domain.items.slice(0, 60).map((row) => row.item)));
    const total = history.reduce((sum, domain) => sum + domain.total, 0);
    byId("person-note").textContent = `${total} ${total === 1 ? "item" : "items"} in ${history.length} ${history.length === 1 ? "domain" : "domains"}, those that the model was trained on.`;
    groups = history.flatMap((domain) => [
      element("h3", {}, id(domain.domain), ` (${domain.total})`),
      element("div", { class: "chips" },
        ...domain.items.slice(0, 60).map((row) => element("button",
          { type: "button", onclick: () => go({ item: row.item, domain: domain.domain }) }, id(titleOf(row.item)))),
        domain.total > 60 ? `and ${domain.total - 60} more` : "")]);
  }
  if (mine === turn) byId("history").replaceChildren(...groups);
}

const RANKED_BY = {
  blend: "Ranked by vectors and by evidence from random walks.",
  vectors: "Ranked by vectors.",
  evidence: "Nothing known in this domain: ranked by random walks from the items in other domains.",
  popularity: "The most popular items of the domain.",
};

async function showList(mine) {
  const wanted = { domain: state.domain, top: 10, why: true, fallback: "popularity" };
  const list = state.liked
    ? await json("/v1/new-user", { ...wanted, items: state.liked })
    : (await json("/v1/recommendations", { ...wanted, users: [state.user] })).results[0];
  await loadDetails(list.items.flatMap((row) => [row.item, ...(row.why?.because_of || []).map((reason) => reason.item)]));
  if (mine !== turn) return;
  byId("list-title").replaceChildren("Recommended in ", id(state.domain));
  byId("list-note").textContent = RANKED_BY[list.by];
  byId("recommendations").replaceChildren(...list.items.map((row) =>
    card(row.item, { rank: row.rank, score: row.score, lines: [whyLine(row.why)] })));
}

function partnerLines(partner) {
  const anchors = partner.anchors.flatMap((anchor, number) => [number ? ", " : "", `${anchor.kind} `, id(anchor.id)]);
  const rest = partner.shared - partner.anchors.length;
  if (!partner.shared) return [partner.is_same ? "the same in both domains" : "no shared anchor is kept"];
  return [`${partner.is_same ? "the same in both domains; " : ""}shared anchors: `, ...anchors, rest ? ` and ${rest} more` : ""];
}

function partnerRow(partner) {
  const where = [element("span", { class: "id" }, "in ", id(partner.domain), `, similarity ${partner.similarity.toFixed(2)}`)];
  const lines = [where, partnerLines(partner)];
  if (partner.kind === "item") return card(partner.id, { lines, domain: partner.domain });
  const open = () => go({ user: partner.id, domain: partner.domain, liked: null, item: "" });
  return element("li", {},
    element("span", { class: "rank" }),
    element("div", { class: "text" }, element("button", { class: "title", type: "button", onclick: open }, id(partner.id))),
    ...lines.map((line) => element("div", { class: "more" }, ...line)));
}

async function partners(kind, name) {
  try {
    return (await json(path("aligned", kind, state.domain, name))).partners;
  } catch (problem) {
    if (problem.status === 404) return [];
    throw problem;
  }
}

async function showLike(mine) {
  byId("like").hidden = !state.item;
  if (!state.item) return;
  const [similar, aligned] = await Promise.all([json(path("similar", state.domain, state.item) + "?top=8"), partners("items", state.item)]);
  await loadDetails([state.item, ...similar.items.map((row) => row.item), ...(aligned || []).filter((row) => row.kind === "item").map((row) => row.id)]);
  if (mine !== turn) return;
  byId("like-title").replaceChildren("Like ", id(titleOf(state.item)), " in ", id(state.domain));
  byId("similar").replaceChildren(...similar.items.map((row) => card(row.item, { rank: row.rank, score: row.score })));
  byId("aligned-items-note").textContent =
    aligned === null ? "This run has no aligned pairs." : aligned.length ? "Random walks from both end at the same anchors." : "None.";
  byId("aligned-items").replaceChildren(...(aligned || []).map(partnerRow));
}

async function showOthers(mine) {
  const aligned = state.user && !state.liked ? await partners("users", state.user) : [];
  if (mine !== turn) return;
  byId("others").hidden = !aligned?.length;
  byId("aligned-users").replaceChildren(...(aligned || []).map(partnerRow));
}

async function searchUsers() {
  const search = byId("user-search").value;
  const found = await json(path("users", state.domain) + `?top=50&search=${encodeURIComponent(search)}`);
  byId("users").replaceChildren(...found.users.map((row) => element("li", {},
    element("button", { type: "button", "aria-current": row.user === state.user && !state.liked ? "true" : undefined,
      onclick: () => go({ user: row.user, liked: null, item: "" }) }, id(row.user), element("small", {}, `${row.items} ${row.items === 1 ? "item" : "items"}`)))));
  return found.users;
}

async function searchItems() {
  const search = byId("item-search").value;
  const found = search ? (await json(path("items", state.domain) + `?top=50&search=${encodeURIComponent(search)}`)).items : [];
  await loadDetails(found.map((row) => row.item));
  byId("items").replaceChildren(...found.map((row) => element("li", {},
    element("button", { type: "button", onclick: () => go({ liked: [...new Set([...(state.liked || []), row.item])] }) },
      id(titleOf(row.item)), element("small", {}, `${row.users} users`)))));
}

// Change what is shown, and remember it in the address, so that it can be linked and gone back to.
async function go(change, remember = true) {
  Object.assign(state, change);
  const address = new URLSearchParams({ domain: state.domain });
  if (state.liked) ["", ...state.liked].forEach((item) => address.append("new", item));
  else address.set("user", state.user);
  if (state.item) address.set("item", state.item);
  if (remember) history.pushState(null, "", `?${address}`);
  byId("domain").value = state.domain;
  await refresh();
  if (change.item && !byId("like").hidden) byId("like-title").focus();
}

async function refresh() {
  const mine = ++turn;
  try {
    const users = await searchUsers();
    if (!state.user && !state.liked && users.length) state.user = users[0].user;
    await Promise.all([showPerson(mine), showList(mine), showLike(mine), showOthers(mine), searchItems()]);
    if (mine === turn) show(null);
  } catch (problem) {
    if (mine === turn) show(problem);
  }
  document.body.dataset.ready = String(mine);
}

function readAddress() {
  const address = new URLSearchParams(location.search);
  const items = address.getAll("new");
  Object.assign(state, {
    domain: address.get("domain") || byId("domain").options[0]?.value || "",
    user: address.get("user") || "",
    liked: items.length ? items.filter((item) => item) : null,
    item: address.get("item") || "",
  });
}

async function start() {
  try {
    const ready = await json("/ready");
    byId("run").textContent = `of ${ready.run}`;
    byId("generation").textContent = `generation ${ready.generation || "–"}, made ${ready.made.slice(0, 16).replace("T", " ")}`;
    const domains = await json("/v1/domains");
    byId("domain").replaceChildren(...domains.map((row) =>
      element("option", { value: row.domain }, `${visible(row.domain)} (${row.users} users, ${row.items} items)`)));
    readAddress();
    await go({}, false);
  } catch (problem) {
    show(problem);
    document.body.dataset.ready = "0";
  }
}

function after(milliseconds, work) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(() => work().catch(show), milliseconds);
  };
}

byId("choice").addEventListener("submit", (event) => event.preventDefault());
byId("domain").addEventListener("change", () => go({ domain: byId("domain").value, item: "" }));
byId("user-search").addEventListener("input", after(150, searchUsers));
byId("item-search").addEventListener("input", after(150, searchItems));
byId("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token-text").value.trim();
  sessionStorage.setItem("edda-token", token);
  show(null);
  start();
});
window.addEventListener("popstate", () => { readAddress(); go({}, false); });
start();
