// Charts of one run or of several, drawn by plotly.js, which stands packed in the page.
(async () => {
  const data = JSON.parse(document.getElementById("charts").textContent), root = document.documentElement;
  const light = ["#2360c8", "#d9622b", "#1f8a63", "#b23a75", "#7a52c7", "#8f6d00", "#12849c", "#c43d3d"];
  const dark = ["#7fb0ff", "#ff9f6b", "#5fd0a0", "#f08abb", "#b99cff", "#e3bd4e", "#5cc8de", "#ff8585"];
  const words = {step: "updates", images: "images", seconds: "seconds"};
  const state = {axis: "step", smooth: 0, hidden: new Set(), dark: false, range: null};
  const drawn = [], probe = document.body.appendChild(Object.assign(document.createElement("i"), {hidden: true}));
  const colour = number => (state.dark ? dark : light)[number % light.length];
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const narrow = matchMedia("(pointer: coarse)");

  const several = data.runs.length > 1;
  document.querySelectorAll(".of-codes").forEach(part => { part.hidden = !data.panels.some(panel => panel.section === "codebook"); });
  if (!data.panels.length) {
    const empty = document.querySelector(".failed");
    empty.hidden = false;
    empty.textContent = "Nothing was logged yet.";
    return;
  }
  try { await unpack(); } catch (error) {
    const failed = document.querySelector(".failed");
    failed.hidden = false;
    failed.textContent = "The curves need a browser of 2023 or later.";
    return;
  }

  async function unpack() {
    const packed = document.getElementById("plotly");
    const bytes = Uint8Array.from(atob(packed.textContent), letter => letter.charCodeAt(0));
    packed.remove();
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    script.remove();
  }

  function smoothed(values) {
    if (!state.smooth) return values;
    let mean = 0, weight = 0;
    return values.map(value => {
      mean = state.smooth * mean + (1 - state.smooth) * value;
      weight = state.smooth * weight + 1 - state.smooth;
      return mean / weight;
    });
  }

  const visible = (panel, line) => !panel.off.has(line.of) && !state.hidden.has(line.run);
  const across = line => line.x || line.at.map(index => (data.runs[line.run].x[state.axis] || [])[index]);

  function traces(panel) {
    const found = [], mixed = panel.lines.some(line => !line.dashed);
    panel.lines.forEach(line => {
      const common = {
        type: "scatter", x: across(line), visible: visible(panel, line), name: line.name,
        mode: line.y.length < 2 ? "markers" : line.y.length < 25 ? "lines+markers" : "lines",
        marker: {size: 5, color: colour(line.colour)},
      };
      const style = {color: colour(line.colour), width: 2, dash: line.dashed && mixed ? "dot" : "solid"};
      if (state.smooth && !panel.x) {
        found.push({...common, mode: "lines", y: line.y, line: {...style, width: 1}, opacity: .25, hoverinfo: "skip"});
      }
      found.push({...common, y: panel.x ? line.y : smoothed(line.y), line: style, hovertemplate: "%{y:,.5~g}"});
    });
    return found;
  }

  function layout(panel) {
    const pick = name => {  // as numbers: the library knows no light-dark()
      probe.style.color = `var(${name})`;
      return getComputedStyle(probe).color;
    };
    const ink = pick("--ink"), soft = pick("--soft"), rule = pick("--line"), card = pick("--card");
    const axis = {gridcolor: rule, linecolor: rule, zerolinecolor: rule, tickfont: {color: soft, size: 11}, fixedrange: narrow.matches};
    const starts = panel.section === "terms" || panel.section === "adversary" ? marks() : [];
    return {
      margin: {l: 54, r: 12, t: starts.length ? 18 : 8, b: 40}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: {family: "system-ui, sans-serif", color: ink, size: 12}, hovermode: "x unified", dragmode: narrow.matches ? false : "zoom",
      hoverlabel: {bgcolor: card, bordercolor: rule, font: {color: ink, size: 12}},
      xaxis: {...axis, title: {text: panel.x || words[state.axis], font: {size: 11, color: soft}, standoff: 6}, type: panel.x ? "log" : "linear",
        ...(panel.x ? {} : {hoverformat: ",.6~g"}), ...(panel.x ? {autorange: true} : {range: state.range || whole(), autorange: false}), showspikes: false},
      yaxis: {...axis, autorange: true, ...level(panel), type: panel.scale, hoverformat: ",.5~g", ...(panel.scale === "log" ? {dtick: logTick(panel), exponentformat: "power"} : {tickformat: ",.6~g"})},
      shapes: starts.map(start => ({type: "line", x0: start.at, x1: start.at, yref: "paper", y0: 0, y1: 1, line: {color: soft, width: 1, dash: "dot"}})),
      annotations: starts.map(start => ({x: start.at, yref: "paper", y: 1, yanchor: "bottom", xanchor: "center", text: `${start.name} starts`, showarrow: false, font: {size: 10, color: soft}})),
    };
  }

  // A line that stays level, in the middle: the library would show one unit to both sides.
  function level(panel) {
    const values = panel.lines.filter(line => visible(panel, line)).flatMap(line => line.y), first = values[0];
    const same = panel.scale === "linear" && first && values.every(value => Math.abs(value - first) <= 1e-9 * Math.abs(first));
    return same ? {autorange: false, range: [first - Math.abs(first) / 2, first + Math.abs(first) / 2]} : {};
  }

  // From the start to the end of the longest run.
  function whole() {
    const last = data.runs.flatMap(run => run.x[state.axis] || []).reduce((most, value) => Math.max(most, value || 0), 0);
    return [0, 1.03 * last || 1];
  }

  // Decades alone where there are several, else as the library likes it.
  function logTick(panel) {
    const values = panel.lines.filter(line => visible(panel, line)).flatMap(line => line.y).filter(value => value > 0);
const decades = values.length ? Math.log10(Math.max(...values) / Math.min(...values)) : 0;
    return decades > 2 ? 1 : decades > .7 ? "D2" : undefined;
  }

  function marks() {
    if (several) return [];
    const {x, starts} = data.runs[0];
    return Object.entries(starts).map(([name, step]) => ({name, at: (x[state.axis] || [])[x.step.indexOf(step)]})).filter(start => start.at !== undefined && start.at !== null);
  }

  const config = {displaylogo: false, responsive: true, displayModeBar: false, doubleClick: false, showTips: false};
  const draw = panel => Plotly.react(panel.plot, traces(panel), layout(panel), config);
  const all = () => drawn.forEach(draw);

  function chip(label, number) {
    const button = Object.assign(document.createElement("button"), {type: "button", className: "chip", textContent: label});
    button.setAttribute("aria-pressed", true);
    button.dataset.colour = number;
    return button;
  }
  const paint = () => document.querySelectorAll("[data-colour]").forEach(part => part.style.setProperty("--colour", colour(Number(part.dataset.colour))));

  function add(panel) {
    panel.off = new Set();
    const card = document.createElement("article"), head = document.createElement("header"), title = document.createElement("div");
    card.className = "panel";
    const heading = Object.assign(document.createElement("h3"), {textContent: panel.title});
    title.append(heading, Object.assign(document.createElement("div"), {className: "unit", textContent: panel.unit}));
    const scale = Object.assign(document.createElement("button"), {type: "button", className: "plain log", textContent: "log"});
    scale.setAttribute("aria-pressed", panel.scale === "log");
    scale.setAttribute("aria-label", `Logarithmic axis of ${panel.title}`);
    scale.addEventListener("click", () => {
      panel.scale = panel.scale === "log" ? "linear" : "log";
      scale.setAttribute("aria-pressed", panel.scale === "log");
      draw(panel);
    });
    head.append(title, scale);
    panel.plot = Object.assign(document.createElement("div"), {className: "plot"});
    const chips = Object.assign(document.createElement("div"), {className: "chips"});
    const names = [...new Set(panel.lines.map(line => line.of))];
    if ((!several || panel.x) && names.length > 1) names.forEach(name => {
      const button = chip(name, panel.lines.find(line => line.of === name).colour);
      const show = off => {
        panel.off = new Set(off);
        [...chips.children].forEach(other => other.setAttribute("aria-pressed", !panel.off.has(other.textContent)));
        draw(panel);
      };
      button.addEventListener("click", event => {
        if (event.detail > 1) return;
        const off = new Set(panel.off);
        off.has(name) ? off.delete(name) : off.add(name);
        show(off);
      });
      button.addEventListener("dblclick", () => {
        const others = names.filter(other => other !== name);
        show(others.every(other => panel.off.has(other)) ? [] : others);
      });
      chips.append(button);
    });
    if (panel.lines.some(line => line.dashed) && panel.lines.some(line => !line.dashed)) title.lastChild.textContent += ", dotted: held-out";
    card.append(head, chips, panel.plot);
    const place = [...document.querySelectorAll(".panels")].find(part => part.dataset.section.split(" ").includes(panel.section));
    place.append(card);
    drawn.push(panel);
    draw(panel);
    panel.plot.on("plotly_relayout", change => {
      if (panel.x) return;
      const [low, high] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (low === undefined) return;
      state.range = [low, high];
      drawn.filter(other => other !== panel && !other.x).forEach(other => Plotly.relayout(other.plot, {"xaxis.range": state.range}));
    });
    panel.plot.on("plotly_doubleclick", reset);
  }

  function reset() {
    state.range = null;
    all();
  }

  state.dark = isDark();
  const tools = document.querySelector(".tools"), choice = tools.querySelector(".axis");
  tools.hidden = false;
  document.querySelector(".hint").hidden = narrow.matches;
  Object.keys(words).filter(axis => data.runs.every(run => run.x[axis])).forEach(axis => {
    const button = Object.assign(document.createElement("button"), {type: "button", textContent: words[axis]});
    button.setAttribute("aria-pressed", axis === state.axis);
    button.addEventListener("click", () => {
      state.axis = axis;
      state.range = null;
      choice.querySelectorAll("button").forEach(other => other.setAttribute("aria-pressed", other === button));
      all();
    });
    choice.append(button);
  });
  tools.querySelector(".smoothing input").addEventListener("input", event => { state.smooth = Number(event.target.value); all(); });
  tools.querySelector(".reset").addEventListener("click", reset);
  if (several) data.runs.forEach((run, number) => {
    const button = chip(run.name, number);
    button.addEventListener("click", () => {
      state.hidden.has(number) ? state.hidden.delete(number) : state.hidden.add(number);
      button.setAttribute("aria-pressed", !state.hidden.has(number));
      all();
    });
    tools.querySelector(".runs").append(button);
  });
  document.querySelectorAll("[data-run]").forEach(dot => { dot.dataset.colour = dot.dataset.run; });
  data.panels.forEach(add);
  paint();
  root.addEventListener("themechange", event => { state.dark = event.detail.dark; paint(); all(); });
  root.dataset.drawn = "true";
})();
