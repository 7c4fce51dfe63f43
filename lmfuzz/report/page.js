"use strict";
const charts = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function theme(light) {
  const ink = light ? "#1c2430" : "#e4e8ee", line = light ? "#d9dee6" : "#3a4453";
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
  const paper = light ? "#ffffff" : "#1b212b";
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: "system-ui, sans-serif", size: 13 },
    hoverlabel: { bgcolor: paper, bordercolor: line, font: { color: ink }, align: "left" },
    legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
    margin: { l: 50, r: 10, t: 40, b: 50 },
    template: { layout: { xaxis: axis, yaxis: axis } },
  };
}

const COLOURS = ["#4a78d9", "#d9772e", "#1d9a8a", "#c2528b", "#8a6bd1", "#7f8c2d"];  // seen on light and dark
const DASHES = ["solid", "dash", "dot", "dashdot"];
const TIME = [[0, "#4a6fdc"], [0.5, "#1d9a8a"], [1, "#d9a22e"]];
const STAR = { symbol: "star", size: 13, color: "#d6336c", line: { width: 1, color: "#ffffff" } };

// How each kind of chart looks: what is added to a trace, and the layout.
const traces = {
  curves: ({ colour, yaxis }) => ({
    type: "scatter", mode: "lines",
    line: {
      color: COLOURS[colour % COLOURS.length], dash: DASHES[Math.floor(colour / COLOURS.length) % DASHES.length],
      shape: yaxis ? "hv" : "linear",
    },
  }),
  bars: () => ({
    type: "bar", orientation: "h", textposition: "auto", textangle: 0, hoverinfo: "none",
    marker: { color: COLOURS[0] },
  }),
  map: ({ born }) => ({
    type: "scatter", mode: "markers", hoverinfo: "text",
    marker: born ? {
      color: born, colorscale: TIME, size: 5, opacity: 0.75,
      colorbar: { title: { text: "execution" }, thickness: 10, len: 0.8, tickformat: "~s" },
    } : STAR,
  }),
};
const layouts = {
  curves: ({ titles }) => ({
    height: 460, hovermode: "x unified",
    xaxis: { title: { text: "executions" }, anchor: "y2", rangemode: "tozero" },
    yaxis: { title: { text: titles[0] }, domain: [0.46, 1], rangemode: "tozero" },
    yaxis2: { title: { text: titles[1] }, domain: [0, 0.38], rangemode: "tozero" },
  }),
  bars: ({ data }) => ({
    height: 110 + 24 * data[0].y.length,
    xaxis: { title: { text: "new states or hits per 1,000 inputs" } }, yaxis: { type: "category" },
  }),
  map: () => ({
    height: 520, hovermode: "closest",
    xaxis: { title: { text: "first principal axis" } }, yaxis: { title: { text: "second principal axis" } },
  }),
};

function draw(light, width) {
  for (const [id, chart] of Object.entries(charts)) {
    const data = chart.data.map(trace => ({ ...trace, ...traces[chart.kind](trace) }));
    const layout = { ...theme(light), ...layouts[chart.kind](chart), width };
    Plotly.react(id, data, layout, { responsive: true, displayModeBar: false });
  }
}

function show() { draw(!dark.matches); }

show();
dark.addEventListener("change", show);
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...opened, ...document.querySelectorAll("details:not([open])")];
  for (const one of opened) one.open = true;
  draw(true, 680);  // the width of a sheet in pixels
});
addEventListener("afterprint", () => {
  for (const one of opened.splice(0)) one.open = false;
  show();
  dispatchEvent(new Event("resize"));  // redrawn charts keep their width
});
for (const button of document.querySelectorAll("button[data-open]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    for (const one of document.querySelectorAll("details.finding")) one.open = button.dataset.open === "yes";
  });
}
function reveal() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
}
reveal();
addEventListener("hashchange", reveal);
