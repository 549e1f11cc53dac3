"use strict";

// What lies between, in words; the keys are the verdicts of status --json.
const between = {
  nat: ["NAT", "another address, same port"],
  napt: ["NAT", "another address and port"],
  destination: ["port forward", "in front of the server"],
  protocol: ["IP translation", "IPv6 to IPv4"],
  intermediary: ["HTTP proxy", "or TLS interception"],
};
const why = {
  connect: "connected", address: "the network changed", silence: "no answer for a while",
  socket: "a connection broke", climb: "looking for a better way", asked: "you asked",
  resume: "this machine woke up", standby: "a second network is there",
};

const $ = (id) => document.getElementById(id);
const history = { down: [], up: [], rtt: [] };
const kept = 300; // seconds
let last = null;

// el makes an element with text; nothing here is ever parsed as HTML.
function el(name, text, kind) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (kind) e.className = kind;
  return e;
}

function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) { n /= 1000; i++; }
  return (i === 0 ? n.toFixed(0) : n.toPrecision(3)) + " " + units[i];
}

const millis = (ms) => (ms < 10 ? ms.toFixed(1) : ms.toFixed(0)) + " ms";

function path(s) {
  const whole = s.machine && s.machine.taken;
  const nodes = [whole ? ["All programs", "by " + s.machine.device, ""] : ["Your programs", location.host, ""]];
  const p = s.path;
  nodes.push(["This machine", p ? p.local : "", "tunnel"]);
  if (p && between[p.verdict]) nodes.push([...between[p.verdict], "between"]);
  nodes.push(["Server", p ? p.remote + " by " + p.encapsulation + (p.down ? ", back by " + p.down.encapsulation : "") : s.server, ""]);
  nodes.push(["Targets", "the internet", ""]);
  $("path").replaceChildren(...nodes.map(([title, sub, kind]) => {
    const li = el("li", undefined, kind), box = el("div", undefined, "node");
    box.append(el("b", title), el("small", sub));
    li.append(box);
    return li;
  }));
}

function chart(id, values) {
  const max = Math.max(...values, 1e-9);
  const from = kept - values.length;
  const points = values.map((v, i) => (from + i).toFixed(0) + "," + (58 - 56 * v / max).toFixed(1)).join(" ");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points);
  $(id).replaceChildren(line);
}

function rates(s) {
  const now = performance.now();
  if (last) {
    const dt = Math.max((now - last.now) / 1000, 0.001);
    history.down.push(Math.max(0, s.bytes_received - last.down) / dt);
    history.up.push(Math.max(0, s.bytes_sent - last.up) / dt);
    history.rtt.push(s.path ? s.path.rtt_ms : 0);
    for (const h of Object.values(history)) while (h.length > kept) h.shift();
    $("down-now").textContent = bytes(history.down.at(-1)) + "/s";
    $("up-now").textContent = bytes(history.up.at(-1)) + "/s";
    $("rtt-now").textContent = s.path ? millis(s.path.rtt_ms) : "–";
    for (const id of ["down", "up", "rtt"]) {
      const most = Math.max(...history[id]);
      chart(id, history[id]);
      $(id + "-most").textContent = most > 0 ? "most " + (id === "rtt" ? millis(most) : bytes(most) + "/s") : "";
    }
  }
  last = { now, down: s.bytes_received, up: s.bytes_sent };
}

function ways(s) {
  // The newest word on each encapsulation.
  const seen = new Map();
  for (const r of (s.registrations || []).toReversed())
    for (const c of r.copies || []) if (!seen.has(c.encapsulation)) seen.set(c.encapsulation, c);
  $("ways").replaceChildren(...[...seen.values()].map((c) => {
    const tr = el("tr");
    const name = el("td", c.encapsulation);
    const down = s.path && s.path.down && s.path.down.encapsulation;
    if (s.path && s.path.encapsulation === c.encapsulation) name.append(el("span", down ? " in use, up" : " in use", "good"));
    if (down === c.encapsulation) name.append(el("span", " in use, down", "good"));
    tr.append(name,
      c.answered ? el("td", "answered", "good") : el("td", c.error || "no answer", c.error ? "bad" : "dim"),
      el("td", c.answered ? millis(c.rtt_ms) : "–", "n"),
      el("td", c.answered ? (between[c.verdict] || [c.verdict === "none" ? "nothing" : c.verdict]).join(", ") : ""));
    return tr;
  }));
}

function moves(s) {
  const list = (s.registrations || []).filter((r) => r.trigger !== "climb" || r.selected).toReversed().slice(0, 30);
  $("moves").replaceChildren(...list.map((r) => {
    const li = el("li");
    const at = el("time", new Date(r.started).toLocaleTimeString());
    at.dateTime = r.started;
    const tail = r.selected ? ": on " + r.selected + (r.down ? " and back by " + r.down : "") + " after " + millis(r.duration_ms) : r.done ? ": no answer" : ": waiting for an answer";
    const gap = Math.max(r.gap_in_ms, r.gap_out_ms);
    li.append(at, el("span", (why[r.trigger] || r.trigger) + tail + (gap > 0 ? ", data paused for " + millis(gap) : "")));
    return li;
  }));
}

function show(s) {
  $("state").textContent = s.state;
  $("state").className = s.state;
  const stuck = s.forced && !(s.path && s.path.encapsulation === s.forced);
  const trouble = stuck ? "Only " + s.forced + " may be used, and nothing has answered by it yet. Streams wait until it does, or until you allow any." :
    s.state === "connected" ? "" : s.last_error || "";
  $("trouble").hidden = !trouble;
  $("trouble").textContent = trouble;
  path(s); rates(s); ways(s); moves(s); force(s);
}

// force shows a button for each encapsulation; they stay the same elements, so that
// none goes away under a finger.
function force(s) {
  const group = $("force");
  for (const name of s.encapsulations || [])
    if (![...group.children].some((b) => b.dataset.to === name)) {
      const b = el("button", name);
      b.type = "button";
      b.dataset.to = name;
      group.append(b);
    }
  for (const b of group.children) b.setAttribute("aria-pressed", String(b.dataset.to === (s.forced || "")));
}

async function order(what, buttons) {
  for (const b of buttons) b.disabled = true;
  try { await (await fetch(what, { method: "POST" })).text(); } finally { for (const b of buttons) b.disabled = false; }
}

$("pac").textContent = location.origin + "/proxy.pac";
$("move").addEventListener("click", () => order("/move", [$("move")]));
$("force").addEventListener("click", (e) => {
  if (e.target.dataset.to !== undefined) order("/force?to=" + encodeURIComponent(e.target.dataset.to), [...$("force").children]);
});

const events = new EventSource("/events");
events.onmessage = (e) => show(JSON.parse(e.data));
events.onerror = () => { $("state").textContent = "godwit does not answer"; $("state").className = "lost"; };
