"use strict";
// Keeps the page up to date. It only ever asks for v1/cluster/live, and puts
// what it gets on the page as text, never as markup.
(() => {
  const every = 2000;    // milliseconds between questions
  const patience = 5000; // for an answer
  const oldAfter = 7000; // then the page says that its figures are old
  const kept = 150;      // points of the chart: five minutes

  const at = (id) => document.getElementById(id);
  const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const whole = (n) => n.toLocaleString("en");
  const rate = (n) => n === 0 ? "0" : n < 0.1 ? "<0.1" : n < 10 ? n.toFixed(1) : whole(Math.round(n));
  // figure shows a number; what was sent stays readable for programs.
  const figure = (id, n, as = whole) => {
    at(id).setAttribute("value", String(n));
    say(at(id), as(n));
  };
  const span = (ms) => {
    const s = Math.round(ms / 1000);
    if (s < 120) return s + " s";
    if (s < 7200) return Math.round(s / 60) + " min";
    if (s < 172800) return Math.round(s / 3600) + " h";
    return Math.round(s / 86400) + " days";
  };

  // rows makes a table's body have these rows. A cell is {text, kind?, number?,
  // wide?}; the first of a row is its header. What is there stays where it is,
  // so that a selection or a reader's place is not lost.
  const rows = (id, list) => {
    const body = at(id);
    while (body.rows.length > list.length) body.deleteRow(-1);
    list.forEach((cells, r) => {
      const row = body.rows[r] || body.insertRow();
      cells.forEach((cell, c) => {
        let node = row.cells[c];
        if (!node) {
          node = document.createElement(c === 0 ? "th" : "td");
          if (c === 0) node.scope = "row";
          row.append(node);
        }
        node.className = [cell.kind, cell.number && "number", cell.wide && "wide"].filter(Boolean).join(" ");
        say(node, cell.text);
      });
    });
  };

  const breakerKind = { closed: "good", "half-open": "warn", open: "bad" };
  const stateKind = { alive: "good", draining: "warn", left: "", dead: "bad" };

  const history = [];
  const draw = (all) => {
    history.push([all.decisions_per_second, all.denials_per_second]);
    if (history.length > kept) history.shift();
    const top = Math.max(1, ...history.map((p) => p[0]));
    const wide = Math.max(history.length, 15) - 1;
    ["chart-decisions", "chart-denials"].forEach((id, i) => {
      const points = history.map((p, x) => (300 - (history.length - 1 - x) * 300 / wide).toFixed(1) + "," + (58 - p[i] / top * 56).toFixed(1));
      at(id).setAttribute("points", points.join(" "));
    });
    say(at("chart-top"), rate(top));
  };

  // problems are what somebody should look at, the worst first.
  const problems = (v, open) => {
    const bad = [], warn = [];
    const s = v.status;
    if (!s.ready) bad.push("this member is not ready: " + s.reason);
    if (s.short) bad.push("fewer members are in reach than it takes");
    const dead = v.gone.filter((g) => g.state === "dead").map((g) => g.name);
    if (dead.length) bad.push(dead.join(", ") + (dead.length > 1 ? " have" : " has") + " died");
    if (open.length) bad.push("breaker not closed: " + open.map((b) => b[0]).join(", "));
    if (s.kv.state !== "available") bad.push("the key-value store is " + s.kv.state);
    if (v.overall.degraded_per_second > 0) bad.push("decisions are degraded");
    if (v.overall.unprotected > 0) warn.push("slots without a second copy: " + whole(v.overall.unprotected));
    if (v.overall.unanswered.length) warn.push("no figures from " + v.overall.unanswered.join(", "));
    return { bad, warn };
  };

  const show = (v) => {
    const s = v.status, all = v.overall;
    const self = s.members.find((m) => m.boot === s.boot);
    const told = new Map(all.members.map((m) => [m.boot, m]));
    const alive = s.members.filter((m) => m.state === "alive").length;
    const breakers = Object.entries(s.breakers).sort(([a], [b]) => a < b ? -1 : 1);
    breakers.push(["kv (key-value store)", s.kv.breaker]);
    const open = breakers.filter((b) => b[1] !== "closed");

    document.title = s.name + " – peerlimit";
    say(at("cluster"), s.name);
    say(at("self"), s.self);
    say(at("uptime"), span(s.uptime_ms));
    say(at("version"), self ? self.version : "–");

    const { bad, warn } = problems(v, open);
    const verdict = at("verdict");
    const text = bad.length || warn.length ? "Look at this: " + bad.concat(warn).join("; ") + "."
      : "All is well: " + whole(alive) + (alive === 1 ? " member." : " members, every slot has a second copy.");
    verdict.className = "verdict " + (bad.length ? "bad" : warn.length ? "warn" : "good");
    say(verdict, text); // read aloud when it changes, and only then

    figure("decisions-rate", all.decisions_per_second, rate);
    figure("denials-rate", all.denials_per_second, rate);
    figure("degraded-rate", all.degraded_per_second, rate);
    figure("alive", alive);
    figure("unprotected", all.unprotected);
    figure("breakers-open", open.length);
    const silent = all.members.filter((m) => !m.observed).map((m) => m.name).concat(all.unanswered);
    say(at("partial"), "Rates are means of the last ten seconds" +
      (silent.length ? ", without " + silent.join(", ") + ", which did not tell." : "."));
    draw(all);

    const gone = v.gone.map((g) => [
      { text: g.name }, { text: g.state + " " + span(g.ago_ms) + " ago", kind: stateKind[g.state] },
      ...Array(4).fill({ text: "–", number: true }), ...Array(3).fill({ text: "–", wide: true }),
    ]);
    rows("members", s.members.map((m) => {
      const t = told.get(m.boot);
      const number = (f) => ({ text: t ? f(t) : "?", number: true });
      return [
        { text: m.name }, { text: m.state, kind: stateKind[m.state] },
        number((t) => whole(t.slots)), number((t) => whole(t.unprotected)),
        number((t) => t.observed ? rate(t.decisions_per_second) : "?"), number((t) => t.observed ? rate(t.denials_per_second) : "?"),
        { text: m.zone || "–", wide: true }, { text: m.version || "–", wide: true }, { text: m.peer || "–", wide: true },
      ];
    }).concat(gone));

    for (const [id, list] of [["hot", all.hot], ["denied", all.denied]]) {
      rows(id, list.map((k) => [{ text: k.key }, { text: k.policy }, { text: rate(k.per_second), number: true }]));
      at(id + "-none").hidden = list.length > 0;
    }
    rows("breakers", breakers.map(([name, state]) => [{ text: name }, { text: state, kind: breakerKind[state] }]));

    say(at("ring-version"), s.ring.version);
    figure("ring-slots", s.ring.slots);
    figure("served", all.slots);
    say(at("kv-state"), s.kv.state);
    at("kv-state").className = s.kv.state === "available" ? "good" : "bad";
    say(at("kv-gossip"), s.kv.gossip);

    const own = told.get(s.boot);
    for (const name of ["decisions", "denials", "degraded"]) {
      if (own && own.observed) figure("self-" + name, own[name]);
    }
    const p = s.possession;
    for (const name of ["slots", "takeovers", "moves", "merges", "waiting"]) figure("self-" + name, p[name]);
    figure("self-refused", Object.values(s.frames_rejected || {}).reduce((a, b) => a + b, 0));
  };

  let shown = 0;     // when the figures came, by this machine's steady clock
  let failure = "";  // why there are no newer ones
  let timer = 0, asking = false;

  const age = () => {
    const old = shown > 0 && performance.now() - shown > oldAfter;
    document.body.classList.toggle("old", old);
    say(at("freshness"), (shown === 0 ? "Not updated yet" :
      (old ? "These figures are old: updated " : "Updated ") + span(performance.now() - shown) + " ago") +
      (failure ? "; " + failure : "") + ".");
    at("freshness").className = old || failure ? "bad" : "quiet";
    if (old) {
      at("verdict").className = "verdict warn";
      say(at("verdict"), "The figures below are old: this member does not answer.");
    }
  };

  const ask = async () => {
    if (asking || document.hidden) return;
    asking = true;
    clearTimeout(timer);
    try {
      const from = new URL("v1/cluster/live", location.href);
      from.username = from.password = ""; // where the address has them: fetch refuses them, and the browser remembers
      const answer = await fetch(from, { signal: AbortSignal.timeout(patience), cache: "no-store" });
      if (answer.status === 401 || answer.status === 403) throw new Error("the token is refused; load the page again");
      if (!answer.ok) throw new Error("this member answered " + answer.status);
      show(await answer.json());
      shown = performance.now();
      failure = "";
    } catch (e) {
      failure = e instanceof TypeError ? "this member can't be reached" :
        e.name === "TimeoutError" ? "this member does not answer in time" : e.message;
    }
    asking = false;
    age();
    timer = setTimeout(ask, every);
  };

  setInterval(() => { if (!document.hidden) age(); }, 1000);
  // Nobody looks at a hidden tab: ask nothing, and at once when it is seen again.
  document.addEventListener("visibilitychange", () => { clearTimeout(timer); if (!document.hidden) { age(); ask(); } });
  ask();
})();
