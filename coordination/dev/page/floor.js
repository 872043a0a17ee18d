// Who holds the floor, from what the room says: announcements by agents, and the record in the room's metadata.

const TOPIC = "baton.floor";
const VERSION = 1;
const AGENT_KIND = 4; // livekit.ParticipantInfo.Kind.AGENT; the server vouches for it

export function isAgent(participant) {
  return participant?.kind === AGENT_KIND;
}

export function roleOf(participant) {
  return participant.attributes?.["lk.agent.name"] || participant.attributes?.["lk.agent_name"] || participant.identity;
}

export class Floor {
  constructor(onChange) {
    this.role = null;
    this.fence = 0;
    this.onChange = onChange;
  }

  // Anybody can publish on the topic, so only agents count; a lower fence is older news.
  onData(payload, participant, topic) {
    if (topic !== TOPIC || !isAgent(participant)) return;
    const said = parse(new TextDecoder().decode(payload));
    if (said?.v === VERSION) this.take(said.fence, said.role || roleOf(participant));
  }

  onMetadata(text) {
    const record = parse(text)?.baton;
    if (record?.v === VERSION) this.take(record.fence, record.role);
  }

  take(fence, role) {
    if (!Number.isSafeInteger(fence) || fence <= this.fence || typeof role !== "string" || !role) return;
    const moved = role !== this.role;
    this.fence = fence;
    this.role = role;
    this.onChange(moved);
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
