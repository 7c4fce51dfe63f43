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

function draw(light, width) {
  for (const [id, chart] of Object.entries(charts)) {
    const layout = { ...theme(light), ...chart.layout, width };
    Plotly.react(id, chart.data, layout, { responsive: true, displayModeBar: false });
  }
}

function show() { draw(!dark.matches); }

show();
dark.addEventListener("change", show);
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...opened, ...document.querySelectorAll("details:not([open])")];
  for (const one of opened) one.open = true;
  draw(true, 680);  // pixels that a sheet has room for
});
addEventListener("afterprint", () => {
  for (const one of opened.splice(0)) one.open = false;
  show();
  dispatchEvent(new Event("resize"));  // charts that are redrawn keep their width
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
