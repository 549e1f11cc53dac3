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
  const nodes = [["Your programs", location.host, ""]];
  const p = s.path;
  nodes.push(["This machine", p ? p.local : "", "tunnel"]);
  if (p && between[p.verdict]) nodes.push([...between[p.verdict], "between"]);
  nodes.push(["Server", p ? p.remote + " by " + p.encapsulation : s.server, ""]);
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
    for (const id of ["down", "up", "rtt"]) chart(id, history[id]);
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
    if (s.path && s.path.encapsulation === c.encapsulation) name.append(el("span", " in use", "good"));
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
    const tail = r.selected ? ": on " + r.selected + " after " + millis(r.duration_ms) : r.done ? ": no answer" : ": waiting for an answer";
    li.append(at, el("span", (why[r.trigger] || r.trigger) + tail));
    return li;
  }));
}

function show(s) {
  $("state").textContent = s.state;
  $("state").className = s.state;
  $("trouble").hidden = !s.last_error || s.state === "connected";
  $("trouble").textContent = s.last_error || "";
  path(s); rates(s); ways(s); moves(s);
}

$("pac").textContent = location.origin + "/proxy.pac";
$("move").addEventListener("click", async () => {
  $("move").disabled = true;
  try { await (await fetch("/move", { method: "POST" })).text(); } finally { $("move").disabled = false; }
});

const events = new EventSource("/events");
events.onmessage = (e) => show(JSON.parse(e.data));
events.onerror = () => { $("state").textContent = "godwit does not answer"; $("state").className = "lost"; };
