// One call with the agents of this stack: joins a room, publishes the microphone, plays what is heard, shows what is said.
//
// "?join=microphone" or "?join=text" starts the call at once, "?room=NAME" picks the room.

import { Floor, isAgent, roleOf } from "./floor.js";
import * as view from "./view.js";

const { Room, RoomEvent, Track } = window.LivekitClient;
const query = new URLSearchParams(location.search);
const LEVEL_EVERY_MS = 80;

let stack = { first: "", roles: [] };
let call = null; // { room, floor, levels }
let typed = 0;

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error((await answer.text()) || answer.statusText);
  return answer.json();
}

async function start(microphone) {
  view.showProblem("");
  view.showState("connecting", "Connecting…");
  const room = new Room({ adaptiveStream: false, dynacast: false });
  try {
    const ticket = await ask("/api/join", { room: query.get("room") || undefined });
    const floor = new Floor((moved) => {
      if (moved) view.showNote(`${floor.role} has the floor`);
      refresh();
    });
    call = { room, floor, levels: null };
    listen(room, floor);
    view.clearTranscript();
    await room.connect(ticket.url, ticket.token);
    await room.startAudio().catch(() => {}); // without a click the browser may want one later
    floor.onMetadata(room.metadata);
    view.showRoom(room.name);
    view.showState("connected", "In the call");
    await openMicrophone(room, microphone);
    refresh();
    document.getElementById("text").focus();
  } catch (fault) {
    call = null;
    await room.disconnect();
    view.showState("idle", "Not in a call");
    view.showProblem(`The call could not be started: ${fault.message || fault}`);
  }
}

async function openMicrophone(room, wanted) {
  if (wanted) {
    try {
      await room.localParticipant.setMicrophoneEnabled(true);
      call.levels = setInterval(() => view.showLevel(room.localParticipant.audioLevel * 3), LEVEL_EVERY_MS);
    } catch (fault) {
      view.showNote(`No microphone (${fault.message || fault}): you can type`);
    }
  }
  view.showMicrophone(microphoneOf(room));
}

function microphoneOf(room) {
  const track = room.localParticipant.getTrackPublication(Track.Source.Microphone);
  return { available: Boolean(track), muted: Boolean(track?.isMuted) };
}

function listen(room, floor) {
  const redraw = [RoomEvent.ParticipantConnected, RoomEvent.ParticipantDisconnected, RoomEvent.ActiveSpeakersChanged,
    RoomEvent.ParticipantAttributesChanged, RoomEvent.TrackUnsubscribed];
  for (const event of redraw) room.on(event, refresh);
  room.on(RoomEvent.TrackSubscribed, (track) => {
    if (track.kind === Track.Kind.Audio) document.body.append(track.attach());
    refresh();
  });
  room.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((player) => player.remove()));
  room.on(RoomEvent.DataReceived, (payload, participant, _kind, topic) => floor.onData(payload, participant, topic));
  room.on(RoomEvent.RoomMetadataChanged, (metadata) => floor.onMetadata(metadata));
  room.on(RoomEvent.Reconnecting, () => view.showState("connecting", "Reconnecting…"));
  room.on(RoomEvent.Reconnected, () => view.showState("connected", "In the call"));
  room.on(RoomEvent.AudioPlaybackStatusChanged, () => {
    if (!room.canPlaybackAudio) view.showNote("Click anywhere to hear the agents");
  });
  room.on(RoomEvent.Disconnected, () => ended(room));
  room.registerTextStreamHandler("lk.transcription", (reader, sender) => transcribe(room, reader, sender.identity));
}

// An agent's words come as one stream that grows; a caller's as several streams of one segment, each with all words so far.
async function transcribe(room, reader, identity) {
  const attributes = reader.info.attributes ?? {};
  const mine = identity === room.localParticipant.identity;
  const speaker = room.remoteParticipants.get(identity);
  const role = speaker ? roleOf(speaker) : identity;
  const key = `${identity} ${attributes["lk.segment_id"] || reader.info.id}`;
  let text = "";
  for await (const piece of reader) {
    text += piece;
    view.showUtterance({ key, role, mine, text, final: false });
  }
  const final = !mine || attributes["lk.transcription_final"] !== "false";
  view.showUtterance({ key, role, mine, text, final });
}

function refresh() {
  if (!call) return view.showAgents(stack.roles.map((role) => ({ role, present: false, floor: false, speaking: false })));
  const agents = [...call.room.remoteParticipants.values()].filter(isAgent);
  const present = new Map(agents.map((agent) => [roleOf(agent), agent]));
  const roles = [...new Set([...stack.roles, ...present.keys()])];
  view.showAgents(roles.map((role) => {
    const agent = present.get(role);
    const floor = Boolean(agent) && role === call.floor.role;
    const state = agent?.attributes?.["lk.agent.state"];
    return {
      role,
      present: Boolean(agent),
      floor,
      speaking: Boolean(agent?.isSpeaking) || (floor && state === "speaking"),
      state,
    };
  }));
}

function ended(room) {
  if (call?.room !== room) return;
  clearInterval(call.levels);
  call = null;
  document.querySelectorAll("audio").forEach((player) => player.remove());
  view.showRoom("");
  view.showState("idle", "The call has ended");
  refresh();
}

async function send(text) {
  if (!call || !text) return;
  typed += 1;
  view.showUtterance({ key: `typed ${typed}`, role: "", mine: true, text, final: true });
  try {
    await call.room.localParticipant.sendText(text, { topic: "lk.chat" });
  } catch (fault) {
    view.showNote(`Not sent: ${fault.message || fault}`);
  }
}

async function toggleMute() {
  if (!call || !microphoneOf(call.room).available) return;
  const { muted } = microphoneOf(call.room);
  await call.room.localParticipant.setMicrophoneEnabled(muted);
  view.showMicrophone(microphoneOf(call.room));
}

document.getElementById("start").addEventListener("click", () => start(true));
document.getElementById("start-text").addEventListener("click", () => start(false));
document.getElementById("mute").addEventListener("click", toggleMute);
document.getElementById("leave").addEventListener("click", () => call?.room.disconnect());
document.addEventListener("click", () => call?.room.startAudio().catch(() => {}));
document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() === "m" && event.target.tagName !== "INPUT" && !event.ctrlKey && !event.metaKey) toggleMute();
});
document.getElementById("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = document.getElementById("text");
  send(input.value.trim());
  input.value = "";
});

stack = await ask("/api/stack");
if (stack.first) document.getElementById("first").textContent = stack.first;
refresh();
if (query.has("join")) await start(query.get("join") === "microphone");
