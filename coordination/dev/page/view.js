// What is on the screen. Knows nothing of LiveKit; text is only ever set as text.

const element = (id) => document.getElementById(id);

// The same role has the same colour in its card and in the transcript.
const HUES = [165, 28, 262, 205, 335, 95];
const hues = new Map();
function hueOf(role) {
  if (!hues.has(role)) hues.set(role, HUES[hues.size % HUES.length]);
  return hues.get(role);
}

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

export function showState(state, words) {
  document.body.dataset.state = state;
  element("status").textContent = words;
  for (const id of ["start", "start-text"]) element(id).disabled = state === "connecting";
}

export function showRoom(name) {
  element("room").textContent = name;
}

export function showProblem(words) {
  element("problem").textContent = words;
  element("problem").hidden = !words;
}

// agents: [{ role, present, floor, speaking, state }]
export function showAgents(agents) {
  element("agents").replaceChildren(...agents.map((agent) => {
    const card = make("li", "agent");
    card.dataset.role = agent.role;
    card.style.setProperty("--hue", hueOf(agent.role));
    card.classList.toggle("away", !agent.present);
    card.classList.toggle("floor", agent.floor);
    card.classList.toggle("speaking", agent.speaking);
    const what = agent.floor ? "has the floor" : agent.present ? "standing by" : "not in the room";
    const detail = agent.floor && agent.state && agent.state !== "idle" ? `${what} · ${agent.state}` : what;
    card.append(make("span", "dot", agent.role.charAt(0).toUpperCase()), make("span", "role", agent.role),
      make("span", "what", detail));
    return card;
  }));
}

// One utterance, which may change while it is heard; the same key is the same utterance.
const utterances = new Map();
export function showUtterance({ key, role, mine, text, final }) {
  let node = utterances.get(key);
  if (!node) {
    if (!text.trim()) return;
    node = make("article", "said");
    node.classList.toggle("mine", mine);
    node.append(make("p", "who", mine ? "You" : role), make("p", "what"));
    if (!mine) node.style.setProperty("--hue", hueOf(role));
    utterances.set(key, node);
    append(node);
  }
  node.classList.toggle("pending", !final);
  node.querySelector(".what").textContent = text;
  follow();
}

export function showNote(text) {
  append(make("p", "note", text));
}

export function clearTranscript() {
  utterances.clear();
  for (const node of document.querySelectorAll(".said, .note")) node.remove();
}

export function showMicrophone({ available, muted }) {
  element("mute").hidden = !available;
  element("mute").setAttribute("aria-pressed", String(muted));
  element("mute-label").textContent = muted ? "Muted" : "Mute";
  if (muted) showLevel(0);
}

export function showLevel(level) {
  element("level").style.setProperty("--level", Math.min(1, level).toFixed(2));
}

function append(node) {
  const near = isAtEnd();
  element("transcript").append(node);
  if (near) follow(true);
}

function isAtEnd() {
  const box = element("transcript");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 120;
}

// Scrolls along, unless the reader has scrolled up.
function follow(always = false) {
  const box = element("transcript");
  if (always || isAtEnd()) box.scrollTop = box.scrollHeight;
}
